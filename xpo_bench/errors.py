"""Errors that a user can fix, each one line: what is wrong, where, and what would be right."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UsageError(Exception):
    """The command line, a configuration or a data set is wrong (exit status 2)."""


class DataError(UsageError):
    """A data set cannot be had or is not usable (exit status 2)."""


class UnreachableError(DataError):
    """A data set or model cannot be reached from this machine: the task is named, others may run."""


class StoreError(Exception):
    """A record cannot be written, the disk being full for instance (exit status 1): what was written before
    is whole.
    """


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM): like Ctrl-C, but with exit status 143."""


class CapacityError(LookupError):
    """An algorithm uses an ability that the policy lacks and that its plugin does not declare, or asks for a
    truth that the task does not state.
    """


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One line for an unknown name: what it is, a did-you-mean, and the known names."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown {kind} {name!r}{hint} (known: {', '.join(names) or 'none'})"
