"""Orders of classes against brute force."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from tests.prune.test_kernels_moments import square
from tests.prune.test_refit import own

from sartor.tools.prune.kernels.window import DENSE, Array, Window, class_columns
from sartor.tools.prune.refit import nest
from sartor.tools.prune.refit_order import Consumer, backward_greedy


def correlated(images: int, channels: int, spatial: tuple[int, ...], seed: int = 0) -> Array:
    """Draw what a ReLU puts out where channels mix half as many sources of unlike strength."""
    rng = np.random.default_rng(seed)
    sources = rng.standard_normal((images, channels // 2, *spatial)) * np.exp(-np.arange(channels // 2)).reshape(
        -1, *(1,) * len(spatial)
    )
    mixed = np.einsum("ck,nk...->nc...", np.random.default_rng(9).standard_normal((channels, channels // 2)), sources)
    return np.maximum(mixed + 0.1 * rng.standard_normal(mixed.shape), 0).astype(np.float32)


def consumer(window: Window, shape: tuple[int, ...], classes: Array, outputs: int = 5, seed: int = 0) -> Consumer:
    x = correlated(*shape[:2], shape[2:], seed)
    rng = np.random.default_rng(seed)
    size = window.groups, shape[1] // window.groups * window.taps, outputs
    weight = rng.standard_normal(size) * np.exp(rng.standard_normal((1, size[1], 1)))
    return Consumer(own(window, x, weight, rng.standard_normal((window.groups, outputs))), classes)


def singles(channels: int, taps: int) -> Array:
    return class_columns(np.arange(channels)[:, None], taps)


CASES = {
    "dense": [consumer(DENSE, (200, 9), singles(9, 1))],
    "3x3": [consumer(square(3, pad=1), (40, 8, 5, 5), singles(8, 9))],
    "pairs": [consumer(DENSE, (200, 12), np.arange(12).reshape(2, 6).T)],
    "some stay": [consumer(DENSE, (200, 12), np.array([[3], [8], [1], [11], [6]]))],
    "groups": [consumer(square(3, groups=2), (40, 12, 5, 5), singles(6, 9))],
    "two consumers": [
        consumer(DENSE, (200, 6), singles(6, 1), 3, 1),
        consumer(square(3, pad=1), (40, 6, 5, 5), singles(6, 9), 7, 2),
    ],
    "one class": [consumer(DENSE, (200, 1 * 4), np.arange(4)[None])],
    "few rows": [consumer(square(3), (2, 8, 5, 5), singles(8, 9))],
}


def loss(consumers: Sequence[Consumer], kept: Sequence[int]) -> float:
    """Sum what consumers lose when these classes are kept."""
    count = len(consumers[0].classes)
    order = np.array([*kept, *(j for j in range(count) if j not in kept)])
    return sum(float(nest(one.statistics, one.classes, order).curve[len(kept)]) for one in consumers)


@pytest.mark.parametrize("name", CASES)
def test_greedy_takes_the_best_of_all_steps(name: str) -> None:
    consumers = CASES[name]
    everything = range(len(consumers[0].classes))
    backward = backward_greedy(consumers).tolist()
    for kept in everything:
        dropped = [loss(consumers, [i for i in backward[: kept + 1] if i != j]) for j in backward[: kept + 1]]
        assert loss(consumers, backward[:kept]) == pytest.approx(min(dropped), abs=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_orders_are_permutations_and_repeat(name: str) -> None:
    consumers = CASES[name]
    found = backward_greedy(consumers)
    assert sorted(found.tolist()) == list(range(len(consumers[0].classes)))
    np.testing.assert_array_equal(backward_greedy(consumers), found)


def test_dead_classes_go_first() -> None:
    x = correlated(200, 8, ())
    x[:, [2, 5, 6]] = 0
    weight = np.random.default_rng(0).standard_normal((1, 8, 4))
    weight[:, [2, 5, 6]] = 1
    one = Consumer(own(DENSE, x, weight, np.zeros((1, 4))), singles(8, 1))
    assert sorted(backward_greedy([one])[-3:].tolist()) == [2, 5, 6]


def by_weight(one: Consumer) -> Array:
    """Order classes by the norm of the weights that read them."""
    return np.argsort(-np.sum(one.statistics.weight[:, one.classes] ** 2, (0, 2, 3)), kind="stable")


def by_energy(one: Consumer) -> Array:
    """Order classes by the norm of their activations times that of the weights that read them."""
    weight = np.sum(one.statistics.weight[:, one.classes] ** 2, (2, 3))
    activation = np.einsum("gkk->gk", one.statistics.gram)[:, one.classes].sum(2)
    return np.argsort(-np.sum(weight * activation, 0), kind="stable")


def test_greedy_does_not_keep_both_of_twins() -> None:
    """A channel and its copy carry most and are kept first by energy; one of them is lost for free."""
    x = correlated(400, 8, ())
    x[:, 0] = 5 * x[:, 1]
    x[:, 7] = x[:, 0]
    weight = np.random.default_rng(0).standard_normal((1, 8, 4))
    one = Consumer(own(DENSE, x, weight, np.zeros((1, 4))), singles(8, 1))
    assert set(by_energy(one)[:2].tolist()) == {0, 7}
    assert not {0, 7} <= set(backward_greedy([one])[:5].tolist())


def test_the_greedy_order_loses_least() -> None:
    """The mean of the curve, by order, over correlated maps: greedy is the better one, by a margin."""
    orders = (by_weight, by_energy, lambda one: backward_greedy([one]))
    means = np.array(
        [
            [nest(one.statistics, one.classes, order(one)).curve.mean() for order in orders]
            for seed in range(8)
            for one in [consumer(square(3, pad=1), (40, 16, 6, 6), singles(16, 9), 16, seed)]
        ]
    )
    by_norm, by_output, greedy = np.log(means).mean(0)
    assert greedy < by_output - 0.02 < by_norm - 0.02
