"""The command group, and what all its commands share: one-line errors, exit statuses, JSON.

Heavy modules are imported inside the commands, so that --help is instant.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec

import click

from xpo_bench.errors import StoreError, Terminated, UnreachableError, UsageError
from xpo_bench.version import __version__

if TYPE_CHECKING:
    from xpo_bench.runner.store import Store

P = ParamSpec("P")


class Main(click.Group):
    """A command group that turns every error that a user can fix into one line."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        kwargs["standalone_mode"] = False
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a terminal that lacks a character still gets the table
        try:
            code = super().main(*args, **kwargs)
        except click.exceptions.Abort:
            say("interrupted")
            code = 130
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            code = 2
        except click.UsageError as error:
            where = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
            say(f"{error.format_message()}{where}")
            code = 2
        except click.ClickException as error:
            say(error.format_message())
            code = 2
        except click.exceptions.Exit as error:
            code = error.exit_code
        except BrokenPipeError:
            # the reader of stdout has gone; without this Python would fail once more when it flushes at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        sys.exit(code if isinstance(code, int) else 0)


def say(message: str) -> None:
    """One line on stderr, whatever the message holds."""
    clean = "".join(c if c.isprintable() else " " for c in str(message))
    click.echo(f"xpo-bench: {clean}", err=True)


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="xpo-bench")
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
@click.pass_context
def main(context: click.Context, debug: bool) -> None:
    """Benchmark preference-optimization algorithms: losses proven against their papers, worlds whose
    optimum is known, exact KL, collapse and displacement, and tables that say what they show.

    \b
    Start with:
      xpo-bench run --algos dpo,ipo
      xpo-bench list algos
    """
    context.obj = {"debug": debug}


def guarded(function: Callable[P, object]) -> Callable[P, int]:
    """Exit statuses of the contract: 2 for what a user can fix, 130 for Ctrl-C."""
    import functools

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> int:
        debug = click.get_current_context().find_root().obj["debug"]
        try:
            result = function(*args, **kwargs)
        except (click.ClickException, click.exceptions.Exit, click.exceptions.Abort, BrokenPipeError):
            raise
        except (Exception, KeyboardInterrupt) as error:
            code, message = _verdict(error)
            if debug:
                import traceback

                traceback.print_exc()
            say(message)
            return code
        return result if isinstance(result, int) else 0

    return wrapper


def _verdict(error: BaseException) -> tuple[int, str]:
    """Exit status and message of what stopped a command."""
    if isinstance(error, UsageError):
        return 1 if isinstance(error, UnreachableError) else 2, str(error)
    if isinstance(error, StoreError):
        return 1, str(error)
    if isinstance(error, KeyboardInterrupt):
        # 128 + signal number, as a shell reports it: SIGTERM is 15, SIGINT 2
        code = 143 if isinstance(error, Terminated) else 130
        return code, "interrupted; finished cells are kept, the same command resumes"
    return 1, f"{type(error).__name__}: {error} (--debug before the command shows the traceback)"


def terminated(*_: object) -> NoReturn:
    """A handler of SIGTERM: what is finished is kept, as on Ctrl-C."""
    raise Terminated


def comma_names(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """The names that an option was given, separated by commas."""
    return None if value is None else tuple(part.strip() for part in value.split(",") if part.strip())


def write_file(path: Path, content: bytes, option: str) -> None:
    """Write the file that an option names; UsageError where it cannot be written."""
    from xpo_bench.runner.store import write_atomic

    try:
        write_atomic(path, content)
    except OSError as error:
        raise UsageError(
            f"{option} {path}: cannot be written ({error.strerror}); name a file in a directory that exists"
        ) from None


def print_json(document: object) -> None:
    from xpo_bench.runner.keys import canonical
    from xpo_bench.runner.store import finite

    click.echo(canonical(finite(document)))


def tell_damaged(store: Store) -> None:
    """Name the records that were left out, since they are incomplete or corrupt."""
    for path, reason in store.damaged.items():
        say(f"{path}: {reason}; left out (running the same command again computes it)")
