"""Work over processes: results in order, errors as they are, and no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from itertools import islice

import pytest

from sartor.share.errors import InputRefusedError, UnavailableError
from sartor.tools.fold.workers import spread


def add(job: int, shared: int) -> tuple[int, int]:
    # Later jobs are done first.
    time.sleep(0.05 / (1 + job))
    return job + shared, os.getpid()


def fail(job: int, shared: int) -> int:
    if job == shared:
        raise InputRefusedError("it is damaged", subject=str(job))
    return job


def die(job: int, shared: int) -> int:
    if job == shared:
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def wait(job: int, _shared: int) -> int:
    time.sleep(600 if job else 0)
    return job


def blocked(_: int, sent: signal.Signals) -> bool:
    return sent in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order(processes: int) -> None:
    found = list(spread(add, range(12), 100, processes))
    assert [result for result, _ in found] == list(range(100, 112))
    assert (os.getpid() in {process for _, process in found}) == (processes == 1)


@pytest.mark.parametrize("processes", [1, 2])
def test_errors_are_those_of_the_job(processes: int) -> None:
    with pytest.raises(InputRefusedError, match="3: it is damaged"):
        list(spread(fail, range(8), 3, processes))
    assert multiprocessing.active_children() == []


def test_a_dead_worker_is_an_error_at_once() -> None:
    with pytest.raises(UnavailableError, match=r"a worker process died\. Use fewer of them with -@"):
        list(spread(die, range(8), 3, 2))
    assert multiprocessing.active_children() == []


def test_workers_that_are_not_waited_for_any_more_are_ended() -> None:
    begun = time.monotonic()
    results = spread(wait, range(8), 0, 2)
    assert list(islice(results, 1)) == [0]
    results.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []
    assert time.monotonic() - begun < 60


def test_interrupts_are_the_parents_alone() -> None:
    """A worker is deaf to Ctrl-C from its first moment, also while it still imports; who started it is not."""
    assert all(spread(blocked, range(2), signal.SIGINT, 2))
    assert not blocked(0, signal.SIGINT)
