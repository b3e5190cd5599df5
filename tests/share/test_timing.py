"""Interleaved timing."""

from __future__ import annotations

from time import perf_counter, sleep

import pytest

from sartor.share.timing import LEAST_ROUNDS, Race, Timing, race


def test_the_slower_call_shows_in_both_ratios() -> None:
    result = race(lambda: sleep(0.001), lambda: sleep(0.004), 0.2)
    assert 900 < result.a.minimum <= result.a.median
    assert 3900 < result.b.minimum <= result.b.median
    assert result.ratio_min > 1.5
    assert result.ratio_median > 1.5


def test_calls_alternate_and_each_side_runs_as_often() -> None:
    calls: list[str] = []
    result = race(lambda: calls.append("a"), lambda: calls.append("b"), 0.01)
    assert calls.count("a") == calls.count("b") > result.rounds >= LEAST_ROUNDS
    # Within pairs of rounds the order is a, b, b, a.
    timed = "".join(calls[-2 * result.rounds :])
    assert all(timed[start : start + 4] == "abba" for start in range(0, len(timed) - 3, 4))


def test_the_budget_holds_unless_the_calls_are_slow() -> None:
    started = perf_counter()
    race(lambda: sleep(0.001), lambda: sleep(0.001), 0.1)
    assert perf_counter() - started < 0.5
    assert race(lambda: sleep(0.01), lambda: None, 0.0).rounds == LEAST_ROUNDS


def test_the_document_holds_ratios_of_b_over_a() -> None:
    document = Race(Timing(2.0, 4.0), Timing(3.0, 8.0), 7).as_json()
    assert document == {
        "schema": 1,
        "a_us": {"min": 2.0, "median": 4.0},
        "b_us": {"min": 3.0, "median": 8.0},
        "ratio_min": 1.5,
        "ratio_median": 2.0,
    }


def test_errors_of_a_call_pass_through() -> None:
    with pytest.raises(ZeroDivisionError):
        race(lambda: 1 / 0, lambda: None, 0.01)
