"""Refits are least squares on the design matrix, pulled towards the layer's own weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.prune.test_kernels_moments import activation, square

from sartor.tools.prune import refit as module
from sartor.tools.prune.kernels.cross import cross
from sartor.tools.prune.kernels.moments import moments, shift_of
from sartor.tools.prune.kernels.window import (
    DENSE,
    Array,
    Window,
    class_columns,
    columns_of,
    output_rows,
    unfold,
    weight_of,
)  # fmt: skip
from sartor.tools.prune.refit import (
    MOST_SHRINKAGE,
    Refit,
    Statistics,
    nest,
    own_statistics,
    pull_of,
    refit,
    refit_first,
    target_statistics,
)  # fmt: skip

CASES = {
    "dense": (DENSE, (500, 9), 4),
    "one column": (DENSE, (63, 1), 3),
    "3x3": (square(3, pad=1), (40, 9, 6, 5), 7),
    "groups": (square(3, groups=3), (40, 9, 6, 5), 6),
    "depthwise": (square(3, pad=1, groups=9), (40, 9, 6, 5), 18),
    "transposed": (square(4, stride=2, pad=1, transposed=True), (30, 8, 4, 4), 5),
    "fewer rows than columns": (square(3), (3, 9, 5, 4), 7),
    "one row": (DENSE, (1, 6), 4),
}


def residual(statistics: Statistics, found: Refit) -> float:
    """Measure the share of the target's energy that a refit, perhaps one to other data, leaves unexplained."""
    columns, weight = found.columns, found.weight
    gram = statistics.gram[:, columns[:, None], columns]
    left = statistics.energy.sum() + np.sum(weight * (gram @ weight - 2 * statistics.cross[:, columns]))
    offset = found.bias + np.einsum("gk,gko->go", statistics.columns[:, columns], weight) - statistics.outputs
    return float((left + np.sum(offset**2)) / statistics.energy.sum())


def layer(window: Window, shape: tuple[int, ...], outputs: int) -> tuple[Array, Array, Array]:
    """Draw a map, the weight columns [G, K, O] and the bias [G, O] of a layer that reads it."""
    rng = np.random.default_rng(1)
    x = activation(shape) + 0.3 * activation((shape[0], 1, *shape[2:]))
    size = window.groups, shape[1] // window.groups * window.taps, outputs // window.groups
    return x, rng.standard_normal(size), rng.standard_normal(size[::2])


def own(window: Window, x: Array, weight: Array, bias: Array | None) -> Statistics:
    return own_statistics(moments(x, window, shift_of(x, window)), weight, bias)


def expected_refit(window: Window, x: Array, weight: Array, bias: Array | None, columns: Array) -> Refit:
    """Solve least squares on the design matrix with a row for each pull, by an orthogonal factor."""
    design = unfold(x.astype(np.float64), window)
    target = design @ weight + (0 if bias is None else bias[:, None])
    pull = pull_of(own(window, x, weight, bias)) * design.shape[1]
    found = []
    for a, y, w, r in zip(design, target, weight, pull, strict=True):
        kept, mean, middle = a[:, columns], 0 * a[0, columns], 0 * y[0]
        if bias is not None:
            mean, middle = kept.mean(0), y.mean(0)
        rows = np.vstack([kept - mean, np.sqrt(r) * np.eye(len(columns))])
        fitted = np.linalg.lstsq(rows, np.vstack([y - middle, np.sqrt(r) * w[columns]]))[0]
        found.append((fitted, middle - mean @ fitted))
    return Refit(columns, *(np.stack(parts) for parts in zip(*found, strict=True)))


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_refit(name: str, with_bias: bool) -> None:
    window, shape, outputs = CASES[name]
    x, weight, bias = layer(window, shape, outputs)
    given = bias if with_bias else None
    columns = np.arange(0, weight.shape[1], 2)
    found, expected = refit(own(window, x, weight, given), columns), expected_refit(window, x, weight, given, columns)
    np.testing.assert_array_equal(found.columns, columns)
    np.testing.assert_allclose(found.weight, expected.weight, atol=3e-3)
    np.testing.assert_allclose(found.bias, expected.bias, atol=1e-2)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("name", [name for name in CASES if name != "depthwise"])
def test_nested_refits_are_refits(name: str, with_bias: bool) -> None:
    window, shape, outputs = CASES[name]
    x, weight, bias = layer(window, shape, outputs)
    statistics = own(window, x, weight, bias if with_bias else None)
    count = shape[1] // window.groups
    classes = class_columns(np.arange(count)[:, None], window.taps)
    order = np.random.default_rng(2).permutation(count)
    nested = nest(statistics, classes, order)
    for kept in range(count + 1):
        columns = np.sort(classes[order[:kept]].ravel())
        found, expected = refit_first(nested, kept), refit(statistics, columns)
        np.testing.assert_array_equal(found.columns, columns)
        np.testing.assert_allclose(found.weight, expected.weight, atol=1e-7)
        np.testing.assert_allclose(found.bias, expected.bias, atol=1e-7)
        change = np.zeros_like(weight)
        change[:, columns] = found.weight
        pulled = np.sum(pull_of(statistics)[:, None, None] * (change - weight) ** 2)
        total = statistics.energy.sum() + np.sum(pull_of(statistics)[:, None, None] * weight**2)
        expected_curve = (residual(statistics, found) * statistics.energy.sum() + pulled) / total
        assert nested.curve[kept] == pytest.approx(expected_curve, abs=1e-9)
    assert nested.curve[0] == pytest.approx(1)
    assert nested.curve[-1] == pytest.approx(0, abs=1e-12)
    assert np.all(np.diff(nested.curve) <= 0)


@pytest.mark.parametrize("name", CASES)
def test_nothing_pruned_is_nothing_changed(name: str) -> None:
    """Dead and constant channels, fewer rows than columns: the layer keeps its own weights."""
    window, shape, outputs = CASES[name]
    x, weight, bias = layer(window, shape, outputs)
    found = refit(own(window, x, weight, bias), np.arange(weight.shape[1]))
    np.testing.assert_allclose(found.weight, weight, atol=1e-6)
    np.testing.assert_allclose(found.bias, bias, atol=1e-5)


def test_duplicates_are_replaced_without_loss() -> None:
    window = square(3, pad=1)
    x, weight, bias = layer(window, (200, 10, 6, 6), 7)
    x[:, 5:] = 2 * x[:, :5]
    statistics = own(window, x, weight, bias)
    classes = class_columns(np.arange(10)[:, None], 9)
    nested = nest(statistics, classes, np.arange(10))
    assert nested.curve[5] < 1e-2
    assert residual(statistics, refit_first(nested, 5)) < 1e-4


def test_columns_of_no_class_stay() -> None:
    x, weight, bias = layer(DENSE, (300, 12), 4)
    statistics = own(DENSE, x, weight, bias)
    classes = np.array([[7], [2], [9]])
    nested = nest(statistics, classes, np.array([2, 0, 1]))
    assert 0 < nested.curve[0] < 1
    for kept, missing in enumerate([(2, 7, 9), (2, 7), (2,), ()]):
        columns = np.setdiff1d(np.arange(12), missing)
        np.testing.assert_array_equal(refit_first(nested, kept).columns, columns)
        np.testing.assert_allclose(refit_first(nested, kept).weight, refit(statistics, columns).weight, atol=1e-9)


def test_a_constant_channel_goes_into_the_bias() -> None:
    x, weight, bias = layer(DENSE, (300, 6), 4)
    x[:, 4] = 2.5
    left = np.array([0, 1, 2, 3, 5])
    found = refit(own(DENSE, x, weight, bias), left)
    np.testing.assert_allclose(found.weight, weight[:, left], atol=1e-5)
    np.testing.assert_allclose(found.bias, bias + 2.5 * weight[:, 4], atol=1e-5)


def test_a_target_from_elsewhere() -> None:
    """For inputs that have changed, a refit to the old outputs is least squares on the new inputs."""
    window = square(3, pad=1)
    x, weight, bias = layer(window, (200, 8, 6, 6), 5)
    y = np.asarray(unfold(x, window)[0] @ weight[0] + bias, np.float32).reshape(200, 36, 5)
    y = y.swapaxes(1, 2).reshape(200, 5, 6, 6)
    noise = np.random.default_rng(3).standard_normal(x.shape, np.float32)
    changed = x + 0.2 * noise
    shift, target_shift = shift_of(changed, window), np.float32(y.mean((0, 2, 3)))[None]
    sums = moments(changed, window, shift), cross(changed, y, window, shift, target_shift)
    design, target = unfold(changed.astype(np.float64), window)[0], output_rows(y.astype(np.float64), 1)[0]
    for has_bias in (True, False):
        statistics = target_statistics(*sums, weight, has_bias)
        found = refit(statistics, np.arange(72))
        rows = np.hstack([design, np.ones((len(design), 1))]) if has_bias else design
        exact = np.linalg.lstsq(rows, target)[0]
        np.testing.assert_allclose(found.weight[0], exact[:72], atol=0.1)
        left = target - design @ found.weight[0] - found.bias[0]
        scale = np.sum((target - has_bias * target.mean(0)) ** 2)
        assert residual(statistics, found) == pytest.approx(np.sum(left**2) / scale, rel=1e-3)
        assert residual(statistics, found) == pytest.approx(np.sum((target - rows @ exact) ** 2) / scale, rel=1e-3)
        nested = nest(statistics, class_columns(np.arange(8)[:, None], 9), np.arange(8))
        assert nested.curve[-1] == pytest.approx(residual(statistics, found), rel=0.05)
        assert np.all(np.diff(nested.curve) <= 0)
        assert 0 < nested.curve[-1] < nested.curve[0] == 1


def test_the_own_output_is_a_target_like_any_other() -> None:
    x, weight, bias = layer(DENSE, (400, 7), 4)
    y = np.asarray(x @ weight[0] + bias[0], np.float32)
    shift, target_shift = shift_of(x, DENSE), np.float32(y.mean(0))[None]
    found = moments(x, DENSE, shift)
    target = target_statistics(found, cross(x, y, DENSE, shift, target_shift), weight, has_bias=True)
    expected = own_statistics(found, weight, bias)
    for name in ("gram", "cross", "energy", "columns", "outputs"):
        np.testing.assert_allclose(getattr(target, name), getattr(expected, name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kept", [4, 9, 15])
def test_the_pruned_layer_loses_what_the_curve_says(kept: int) -> None:
    """Written back and run by torch, the refitted layer on kept channels misses the share of energy of the curve."""
    window = square(3, pad=1)
    x, weight, bias = layer(window, (300, 16, 6, 6), 10)
    nested = nest(own(window, x, weight, bias), class_columns(np.arange(16)[:, None], 9), np.arange(16)[::-1])
    found = refit_first(nested, kept)
    run = torch.nn.functional.conv2d
    full = run(torch.from_numpy(x.astype(np.float64)), torch.tensor(weight_of(weight, window)), padding=1)
    pruned = run(
        torch.from_numpy(x[:, 16 - kept :].astype(np.float64)),
        torch.tensor(weight_of(found.weight, window)),
        torch.from_numpy(found.bias[0] - bias[0]),
        padding=1,
    )
    energy = ((full - full.mean((0, 2, 3), keepdim=True)) ** 2).sum()
    assert float(((full - pruned) ** 2).sum() / energy) == pytest.approx(nested.curve[kept], rel=0.02)


def test_groups_can_be_taken_apart() -> None:
    window, shape, outputs = CASES["groups"]
    x, weight, bias = layer(window, shape, outputs)
    whole = own(window, x, weight, bias)
    parts = [refit(whole.group(i), np.arange(9)) for i in range(3)]
    np.testing.assert_allclose(
        np.concatenate([part.weight for part in parts]), refit(whole, np.arange(9)).weight, atol=1e-12
    )


@pytest.mark.parametrize("dead", ["input", "weight"])
def test_a_layer_that_does_nothing(dead: str) -> None:
    x, weight, bias = layer(DENSE, (50, 6), 4)
    x, weight = (x * 0, weight) if dead == "input" else (x, weight * 0)
    nested = nest(own(DENSE, x, weight, bias), np.arange(6)[:, None], np.arange(6))
    assert np.all((nested.curve >= 0) & (nested.curve <= 1))
    assert np.all(np.isfinite(refit_first(nested, 3).weight))
    np.testing.assert_allclose(refit_first(nested, 3).bias, bias, atol=1e-6)


def test_columns_of_the_weight_round_trip_through_a_refit() -> None:
    window = square(3, pad=1)
    weight = np.random.default_rng(0).standard_normal((4, 5, 3, 3))
    kept = class_columns(np.array([[1], [4]]), 9).ravel()
    np.testing.assert_array_equal(weight_of(columns_of(weight, window)[:, kept], window), weight[:, [1, 4]])


def test_the_pull_shrinks_with_rows() -> None:
    """Few rows ask for a strong pull, many for hardly any; nothing asks for more than the bound."""
    x, weight, bias = layer(DENSE, (100000, 20), 4)
    found = [own(DENSE, x[:rows], weight, bias) for rows in (10, 100, 1000, 100000)]
    pulls = [float(pull_of(one)[0] / np.trace(one.gram[0]) * 20) for one in found]
    assert pulls == sorted(pulls, reverse=True)
    assert pulls[0] / pulls[-1] > 1e3
    identity = replace(found[-1], gram=np.eye(20)[None])
    assert pull_of(identity)[0] == pytest.approx(MOST_SHRINKAGE / (1 - MOST_SHRINKAGE))


def test_a_refit_to_few_rows_holds_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer rows than columns: better than no refit, and better than one that is hardly pulled."""
    window = square(3, pad=1)
    _, weight, bias = layer(window, (1, 16, 6, 6), 10)
    rng = np.random.default_rng(0)
    mixed = np.einsum("ck,nkhw->nchw", rng.standard_normal((16, 6)), rng.standard_normal((300, 6, 6, 6)))
    x = np.maximum(mixed + 0.3 * rng.standard_normal(mixed.shape), 0).astype(np.float32)
    few, many = own(window, x[:3], weight, bias), own(window, x[3:], weight, bias)
    columns = class_columns(np.arange(12)[:, None], 9).ravel()
    assert few.rows < weight.shape[1]
    unfitted = Refit(columns, weight[:, columns], few.outputs - few.columns[:, columns] @ weight[0, columns])
    pulled = residual(many, refit(few, columns))
    monkeypatch.setattr(module, "pull_of", lambda statistics: module.LEAST_PULL * statistics.scale)
    assert pulled < 0.8 * min(residual(many, unfitted), residual(many, refit(few, columns)))
