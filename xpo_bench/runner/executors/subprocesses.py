"""Processes that this one starts: how they begin, end with it, and hand back what they raise."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
from collections.abc import Iterable, Iterator
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any

from xpo_bench.errors import UsageError
from xpo_bench.runner import source_files

ALIKE = {"PYTHONHASHSEED": "0", "PYTHONSAFEPATH": "1"}
ASKED = "XPO_BENCH_ASKED_BY"
"""The variable that tells a process that is started who asked for it, by pid."""
EVERY_ARCHITECTURE = ("transformers.modeling_utils", "transformers.models.llama.modeling_llama")
"""What a language model needs: the file of Llama, which is `tiny`, imports what most others do."""


def beginning(language: bool) -> SpawnContext | ForkServerContext:
    """What begins processes: a fork server with everything imported that they need, else spawned ones.

    Forking this process itself would copy the locks of torch's threads in whatever state they are, and CUDA
    does not survive it. The server has imported torch and computed nothing: a fork of it is safe and takes
    milliseconds, where a spawned interpreter imports torch for seconds, and for a language model as long
    again what every architecture needs.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    here = __package__
    models = [*EVERY_ARCHITECTURE, f"{here}.model_cache"] if language else []
    ours = [f"{here}.process_pool", f"{here}.data_parallel"]
    # in this order: `preload` first, so that a server that still imports ends with this process
    context.set_forkserver_preload([f"{here}.preload", "torch", *ours, *models, f"{here}.preloaded"])
    return context


def anticipate(language: bool) -> None:
    """Have the fork server begin with its imports now, while this process does something else."""
    if isinstance(beginning(language), ForkServerContext):
        with as_child():
            forkserver.ensure_running()


@contextlib.contextmanager
def as_child() -> Iterator[None]:
    """Processes that are started meanwhile order sets alike, and never hear Ctrl-C, which a terminal sends to
    all.

    Nor do they import from the working directory what this process does not: modules of a user's own called
    as those of the standard library are.
    """
    # one hash seed for all, or sets would be walked in another order in every process; no working directory
    # on the module path; SIGINT blocked here is blocked in the child, which inherits the mask: this process
    # alone hears Ctrl-C, and ends the others
    before_env = {name: os.environ.get(name) for name in (*ALIKE, ASKED)}
    os.environ.update(
        {name: before_env[name] or value for name, value in ALIKE.items()} | {ASKED: str(os.getpid())}
    )
    masks = hasattr(signal, "pthread_sigmask")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if masks else set()
    try:
        yield
    finally:
        if masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for name, value in before_env.items():
            if value is None:
                del os.environ[name]


def packed(content: object, classes: Iterable[type], option: str) -> bytes:
    """Content as it can be sent, with the files of those of its classes that no module has.

    Raises:
        UsageError: a class that cannot be sent; `option` is what asked for other processes.
    """
    try:
        return pickle.dumps((source_files.needed(classes), pickle.dumps(content)))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise unsendable(error, option) from error


def unpacked(message: bytes, option: str) -> Any:
    """What `packed` was given; pickle has no type for it."""
    try:
        files, content = pickle.loads(message)
        source_files.take(files)
        return pickle.loads(content)
    except (AttributeError, ImportError) as error:
        raise unsendable(error, option) from error


def unsendable(error: BaseException, option: str) -> UsageError:
    reason = str(error).splitlines()[0]
    return UsageError(
        f"{option}: other processes cannot import what this run names ({reason}); put it in a module"
    )


class RemoteTraceback(Exception):
    """The traceback of what a process raised, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def rebuilt(pickled: bytes, text: str) -> BaseException:
    """What a process raised, with the traceback that it had there."""
    error: BaseException = pickle.loads(pickled)
    error.__cause__ = RemoteTraceback(text)
    return error


def ending(process: multiprocessing.process.BaseProcess) -> str:
    """How a process that is no more has ended, in words."""
    code = process.exitcode or 0
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"has exited with status {code}"


def follow() -> None:
    """End with the process that started this one, which may have been killed."""
    parent = multiprocessing.parent_process()
    if parent:
        wait([parent.sentinel])
        os._exit(1)


def portable(error: BaseException) -> bytes:
    """The error as it can be sent, another one that says as much where it cannot."""
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return pickled
