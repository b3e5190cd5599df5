"""Work spread over processes: results in order, a bounded number in flight, nothing left behind when a run ends."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

from sartor.share.errors import UnavailableError

Job = TypeVar("Job")
Result = TypeVar("Result")

AHEAD = 2
"""Jobs for each process that are begun before the first result is taken."""

_PR_SET_PDEATHSIG = 1


def spread(work: Callable[[Job], Result], jobs: Iterable[Job], processes: int) -> Iterator[Result]:
    """Yield the results of jobs in their order; with one process the work is done right here.

    Raises what a job raises, and UnavailableError where a process was killed.
    """
    if processes == 1:
        yield from map(work, jobs)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, _settle, (os.getpid(),))
    try:
        yield from _in_order(pool, work, iter(jobs), processes * AHEAD)
    except BrokenProcessPool:
        remedy = "Use fewer of them with -@, or a machine with more memory"
        raise UnavailableError("a worker process was killed", remedy=remedy) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor, work: Callable[[Job], Result], jobs: Iterator[Job], most: int
) -> Iterator[Result]:
    running: deque[Future[Result]] = deque(pool.submit(work, job) for job in islice(jobs, most))
    while running:
        result = running.popleft().result()
        running.extend(pool.submit(work, job) for job in islice(jobs, 1))
        yield result


def _settle(parent: int) -> None:
    """Let a worker end with its parent, and leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
