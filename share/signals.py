"""Signals that end a run, turned into exceptions so that cleanup happens."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGHUP)


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
