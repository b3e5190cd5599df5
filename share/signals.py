"""Signals that end a run, turned into exceptions so that cleanup happens."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGHUP)

WRAPPING_UP = (signal.SIGTERM, signal.SIGUSR1)
"""What batch systems send some time before they end a job."""


class Stopped(BaseException):
    """A signal asked the process to end; like KeyboardInterrupt, not an Exception, so that nothing swallows it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def _raise_stopped(signum: int, _frame: FrameType | None) -> None:
    # Impatient senders repeat themselves; a second signal must not cut the cleanup short.
    for stopping in STOPPING:
        signal.signal(stopping, signal.SIG_IGN)
    raise Stopped(signum)


@contextmanager
def raise_on_stop() -> Iterator[None]:
    """Raise Stopped in the block when SIGTERM or SIGHUP arrives; ignored signals (nohup) stay ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in STOPPING}
    for signum, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(signum, _raise_stopped)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def noting_stop() -> Iterator[Callable[[], int | None]]:
    """Take note in the block of SIGTERM and SIGUSR1 instead of ending; yields what tells the first that came."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    came: list[int] = []
    before = {signum: signal.getsignal(signum) for signum in WRAPPING_UP}
    for signum in WRAPPING_UP:
        signal.signal(signum, lambda number, _frame: came.append(number))
    try:
        yield lambda: came[0] if came else None
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
