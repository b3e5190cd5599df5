"""Random numbers: those of the plain form, alike, and unlike for any other key."""

from __future__ import annotations

import numpy as np
import pytest

from sartor.tools.fold.data import reference
from sartor.tools.fold.data.draws import below, key_of, mix, mixed, shuffled, uniform


def test_mixing_is_that_of_the_plain_form() -> None:
    # The first outputs of SplitMix64 for the seed 1234567, as its authors' C code gives them.
    golden = 0x9E3779B97F4A7C15
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [mixed(1234567 + golden * number) for number in (1, 2, 3)] == expected
    assert [int(mix(np.uint64((1234567 + golden * number) % 2**64))) for number in (1, 2, 3)] == expected


@pytest.mark.parametrize("parts", [(0,), (1, 2, 3), (2**63, 5)])
def test_streams_are_those_of_the_plain_form(parts: tuple[int, ...]) -> None:
    key = key_of(*parts)
    plain = reference.uniforms(key, 1000)
    assert [uniform(key, counter) for counter in range(1000)] == plain.tolist()
    assert shuffled(key, np.arange(63)).tolist() == reference.shuffled(key, np.arange(63)).tolist()


def test_numbers_are_alike() -> None:
    draws = reference.uniforms(key_of(3, 4), 100_000)
    assert 0 <= draws.min() < draws.max() < 1
    assert abs(np.histogram(draws, 10, (0, 1))[0] - 10_000).max() < 400
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.01
    counts = np.bincount([below(key_of(5), counter, 7) for counter in range(7000)], minlength=7)
    assert abs(counts - 1000).max() < 120


def test_keys_differ_by_every_part_and_their_order() -> None:
    keys = {int(key_of(*parts)) for parts in ((), (0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1), (0, 0, 1), (256,))}
    assert len(keys) == 9
    one, other = (reference.uniforms(key_of(0, step), 1000) for step in (0, 1))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.1


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_shuffling_loses_nothing(count: int) -> None:
    assert sorted(shuffled(key_of(1), np.arange(count))) == list(range(count))


def test_every_order_is_alike() -> None:
    orders = [tuple(shuffled(key_of(number), np.arange(3))) for number in range(6000)]
    assert all(abs(orders.count(order) - 1000) < 120 for order in set(orders))
    assert len(set(orders)) == 6
