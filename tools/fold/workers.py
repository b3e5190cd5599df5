"""Work spread over processes: results in order, a bounded number in flight, nothing left behind when a run ends."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

from sartor.share.errors import UnavailableError

Job = TypeVar("Job")
Result = TypeVar("Result")
Shared = TypeVar("Shared")

AHEAD = 2
"""Jobs for each process that are begun before the first result is taken."""

_PR_SET_PDEATHSIG = 1

_handed: list[Any] = []
"""What the work and all jobs of a worker process share: sent once, not with each job."""


def spread(
    work: Callable[[Job, Shared], Result], jobs: Collection[Job], shared: Shared, processes: int
) -> Iterator[Result]:
    """Yield the results of jobs in their order; with one process, or one job, the work is done right here.

    Raises what a job raises, and UnavailableError where a process was killed.
    """
    processes = min(processes, len(jobs))
    if processes <= 1:
        yield from (work(job, shared) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(processes, context, _settle, (os.getpid(), work, shared))
    try:
        yield from _in_order(pool, iter(jobs), processes * AHEAD)
    except BrokenProcessPool:
        remedy = "Use fewer of them with -@, or a machine with more memory"
        raise UnavailableError("a worker process died", remedy=remedy) from None
    except BaseException:
        # Nobody wants their results any more, and one may wait for a disk that does not answer.
        for process in set(multiprocessing.active_children()) - before:
            process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, jobs: Iterator[Any], most: int) -> Iterator[Any]:
    running: deque[Future[Any]] = deque(_begin(pool, job) for job in islice(jobs, most))
    while running:
        result = running.popleft().result()
        running.extend(_begin(pool, job) for job in islice(jobs, 1))
        yield result


def _begin(pool: ProcessPoolExecutor, job: Any) -> Future[Any]:
    """Hand in a job. A worker that is started for it inherits that Ctrl-C is blocked, and leaves it to its parent."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_do, job)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _do(job: Any) -> Any:
    work, shared = _handed
    return work(job, shared)


def _settle(parent: int, work: Callable[[Any, Any], Any], shared: Any) -> None:
    """Let a worker end with its parent."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have ended before the line above.
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    _handed[:] = (work, shared)
