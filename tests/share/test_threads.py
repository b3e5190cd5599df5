"""The default number of threads."""

from __future__ import annotations

import os

import pytest

from sartor.share.errors import UsageError
from sartor.share.threads import default_threads


def test_affinity_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3, 5, 9})
    assert default_threads() == 3


def test_slurm_decides_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "12")
    assert default_threads() == 12


@pytest.mark.parametrize("value", ["", "0", "-1", "two", "2.5", "²"])
def test_nonsense_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", value)
    with pytest.raises(UsageError) as refusal:
        default_threads()
    expected = f"SLURM_CPUS_PER_TASK={value}: not a number of threads. Unset it or give the threads with -@"
    assert str(refusal.value) == expected
