"""Asks a warm process to run a command, and ends with its status: `ask_warm.py SOCKET COMMAND WORDS...`."""

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence


def ask(at: str, argv: Sequence[str], cwd: str, env: Mapping[str, str], files: Sequence[int]) -> int:
    """The exit status of a command.

    Args:
        at: the socket of the process. files: descriptors of what the command has as stdin, stdout and stderr.
    """
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(at)
        socket.send_fds(line, [b"."], files)
        line.sendall(json.dumps({"argv": list(argv), "cwd": cwd, "env": dict(env)}).encode())
        line.shutdown(socket.SHUT_WR)
        return int(line.recv(16) or b"70")


if __name__ == "__main__":
    sys.exit(ask(sys.argv[1], sys.argv[2:], os.getcwd(), os.environ, (0, 1, 2)) % 256)
