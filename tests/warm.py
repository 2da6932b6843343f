"""Runs commands of `xpo-bench`, each in a fork of this process, which has imported the slow modules.

It serves the listening socket whose descriptor is its first argument until its stdin is closed, one command
after the other; helpers/ask_warm.py is the other side. No thread is started before a fork.
"""

import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from multiprocessing import util
from typing import Any

import xpo_bench
import xpo_bench_plugins
from xpo_bench import cli


def preload(least: bool, language: bool) -> None:
    """Import what commands need; they register the plugins themselves."""
    importlib.import_module("xpo_bench.runner.execute")  # with torch
    if least:  # for a few commands: what only some need costs more than it saves
        return
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import scipy.stats  # noqa: F401

    # the suite's own modules are seven tenths of what a small command costs
    for package in (xpo_bench, xpo_bench_plugins):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    if language:  # some seconds more, of which commands on language models save four each
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM  # noqa: F401


def begun(path: bytes, args: Sequence[Any], passfds: Sequence[int]) -> int:
    """What multiprocessing begins its servers with: the fork server, as a fork, has everything imported.

    An interpreter of its own imports torch and transformers for seconds, once per command with worker
    processes; what it does after that is what the fork does.
    """
    if "multiprocessing.forkserver" not in args[-1]:
        return EXECUTED(path, args, passfds)
    pid: int = os.fork()
    if pid:
        return pid
    try:
        for handled in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(handled, signal.SIG_DFL)
        # no file but those that an interpreter would be given; their numbers stay taken, since objects of
        # the command go on naming them
        none = os.open(os.devnull, os.O_RDWR)
        for number in {int(name) for name in os.listdir("/dev/fd")} - {0, 1, 2, none, *passfds}:
            os.dup2(none, number)
        gc.freeze()
        exec(args[-1], {})
    except SystemExit:
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


EXECUTED = util.spawnv_passfds


def child(request: dict[str, Any], files: list[int]) -> int:
    util.spawnv_passfds = begun
    for number, file in enumerate(files):
        os.dup2(file, number)
    # another kind of file than this process has, a pipe perhaps
    sys.stdout = open(1, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)  # noqa: SIM115
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    sys.path[:0] = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.argv = request["argv"]
    try:
        cli.main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    return 0


def answer(line: socket.socket) -> None:
    """Run the command that arrives by a connection, and send back how it has ended."""
    _, files, *_ = socket.recv_fds(line, 1, 3)
    with line.makefile("rb") as sent:
        request = json.load(sent)
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = child(request, files)
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    for file in files:
        os.close(file)
    line.sendall(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())


def serve(server: socket.socket) -> None:
    while server in select.select([server, sys.stdin], [], [])[0]:
        connection, _ = server.accept()
        with connection:
            answer(connection)


if __name__ == "__main__":  # not in the processes that a command begins, which import this file again
    preload("least" in sys.argv[2:], "language" in sys.argv[2:])
    gc.freeze()  # no child walks through what its parent has made
    serve(socket.socket(fileno=int(sys.argv[1])))
