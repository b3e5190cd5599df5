"""What every command shares: errors become one line and an exit code, signals become exceptions."""

from __future__ import annotations

import errno
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import NoReturn, ParamSpec

from sartor.share import console
from sartor.share.errors import OutputError, SartorError, WriteError
from sartor.share.signals import Stopped, raise_on_stop

Parameters = ParamSpec("Parameters")

INTERNAL_ERROR = 70
BROKEN_PIPE = 141
LONGEST_REASON = 300
"""Characters of an internal error's message that are shown."""

_FULL = {errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT}
_UNREACHABLE = {
    errno.EACCES,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


def command(name: str) -> Callable[[Callable[Parameters, None]], Callable[Parameters, None]]:
    """Decorate a command function: errors, signals, closed pipes and `quiet`/`verbose` are dealt with here."""

    def decorate(function: Callable[Parameters, None]) -> Callable[Parameters, None]:
        @wraps(function)
        def framed(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
            quiet, verbose = bool(kwargs.get("quiet")), bool(kwargs.get("verbose"))
            named = console.speaking_as(f"sartor {name}", quiet=quiet, verbose=verbose)
            with named, exit_codes(), raise_on_stop(), plain_warnings(), plain_logs():
                function(*args, **kwargs)
                flush_stdout()

        return framed

    return decorate


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn every exception of the block into one line on stderr and SystemExit with the right code."""
    try:
        yield
    except SartorError as error:
        _fail(str(error), error.exit_code)
    except Stopped as stopped:
        _fail(f"stopped by signal {stopped.signum}", 128 + stopped.signum)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:
        settle_stdout()
        raise SystemExit(BROKEN_PIPE) from None
    except MemoryError:
        _fail("out of memory. Use a machine with more memory or a smaller model", INTERNAL_ERROR)
    except OSError as error:
        _fail_by_system(error)
    except Exception as error:
        _fail_internally(error)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show Python warnings of the block as our one-line warnings."""

    def show(message: Warning | str, *_place: object, **_more: object) -> None:
        console.warn(str(message))

    before = warnings.showwarning
    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


@contextmanager
def plain_logs() -> Iterator[None]:
    """Show what libraries log in the block only to those who ask for more, line by line."""
    import logging

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            console.detail(console.one_line(record.getMessage()))

    handler = Handler(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def flush_stdout() -> None:
    """Write what stdout still holds, so that a full disk or a closed pipe shows here and not at shutdown."""
    # Python sets stdout to None when the shell closed it (`>&-`).
    if sys.stdout is not None:
        sys.stdout.flush()


def settle_stdout() -> None:
    """Flush stdout, or point it at the null device when it takes no more, so that the flush at exit can't fail."""
    try:
        flush_stdout()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _fail(message: str, code: int) -> NoReturn:
    if os.environ.get("SARTOR_DEBUG") == "1":
        traceback.print_exc()
    settle_stdout()
    console.error(message)
    raise SystemExit(code)


def _fail_by_system(error: OSError) -> NoReturn:
    reason = (error.strerror or str(error)).lower()
    subject = str(error.filename) if error.filename else "output"
    if error.errno in _FULL:
        wrapped: SartorError = WriteError(reason, subject=subject, remedy="Free some space or write elsewhere")
    elif error.errno in _UNREACHABLE:
        wrapped = OutputError(reason, subject=subject, remedy="Check the path and its permissions")
    else:
        _fail_internally(error)
    _fail(str(wrapped), wrapped.exit_code)


def _fail_internally(error: Exception) -> NoReturn:
    remedy = "Please report it with SARTOR_DEBUG=1 output"
    reason = console.one_line(str(error))
    # Compilers and runtimes put whole programs into their messages.
    short = reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}..."
    _fail(f"internal error: {type(error).__name__}: {short}. {remedy}", INTERNAL_ERROR)
