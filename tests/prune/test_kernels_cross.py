"""Cross products with a target are those of the design matrix."""

from __future__ import annotations

import numpy as np
import pytest
from tests.prune.test_kernels_moments import CASES, activation

from sartor.tools.prune.kernels import cross as module
from sartor.tools.prune.kernels.cross import Cross, cross, cross_reference
from sartor.tools.prune.kernels.moments import shift_of
from sartor.tools.prune.kernels.window import output_shape, sliding, spread


def check(found: Cross, expected: Cross) -> None:
    assert found.rows == expected.rows
    scale = max(float(np.abs(expected.energy).max(initial=0)), 1e-30)
    np.testing.assert_allclose(found.energy, expected.energy, atol=1e-6 * scale)
    np.testing.assert_allclose(found.cross, expected.cross, atol=1e-6 * scale)
    np.testing.assert_allclose(found.sums, expected.sums, atol=1e-5 * scale)


@pytest.mark.parametrize("chunk", [module.CHUNK, 7])
@pytest.mark.parametrize("name", CASES)
def test_cross(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    window, shape = CASES[name]
    x = activation(shape)
    slide = sliding(window)
    output = output_shape(spread(x, slide).shape[2:], slide) if x.ndim > 2 else ()
    y = 1 + np.random.default_rng(1).standard_normal((len(x), 2 * window.groups, *output), dtype=np.float32)
    target_shift = np.full((window.groups, 2), 1.25, np.float32)
    shift = shift_of(x, window)
    check(cross(x, y, window, shift, target_shift), cross_reference(x, y, window, shift, target_shift))


def test_batches_add_up() -> None:
    window, shape = CASES["3x3"]
    x, shift, target_shift = activation(shape), np.zeros(shape[1], np.float32), np.ones((1, 3), np.float32)
    y = activation((shape[0], 3, *shape[2:]))
    parts = [cross(x[part], y[part], window, shift, target_shift) for part in (slice(0, 2), slice(2, None))]
    check(parts[0] + parts[1], cross_reference(x, y, window, shift, target_shift))
