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
import socket
import sys
import traceback
from typing import Any

import pandas  # noqa: F401
import pyarrow.parquet  # noqa: F401
import scipy.stats  # noqa: F401
import torch  # noqa: F401

import xpo_bench
import xpo_bench_plugins
from xpo_bench import cli


def preload(language: bool) -> None:
    """Import what commands need; they register the plugins themselves."""
    # the suite's own modules are seven tenths of what a small command costs
    for package in (xpo_bench, xpo_bench_plugins):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    if language:  # some seconds more, of which commands on language models save four each
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM  # noqa: F401


def child(request: dict[str, Any], files: list[int]) -> int:
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
    preload("language" in sys.argv[2:])
    gc.freeze()  # no child walks through what its parent has made
    serve(socket.socket(fileno=int(sys.argv[1])))
