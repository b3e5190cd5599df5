"""Gram matrices and cross products by Triton are those of the design matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.prune.test_kernels_cross import check as check_cross
from tests.prune.test_kernels_moments import CASES, activation, check

from sartor.tools.prune.kernels import moments_triton as module
from sartor.tools.prune.kernels.cross import cross_reference
from sartor.tools.prune.kernels.moments import moments_reference, shift_of
from sartor.tools.prune.kernels.window import output_shape, padded_shape, sliding

NAMES = [name for name in CASES if "long" not in name]


@pytest.fixture(params=["whole", "split"], autouse=True)
def split(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one program have all rows, or split them finely."""
    if request.param == "split":
        monkeypatch.setattr(module, "processors", lambda device: 2)
        monkeypatch.setattr(module, "FLUSH", 64)


@pytest.mark.parametrize("name", NAMES)
def test_gram(name: str) -> None:
    window, shape = CASES[name]
    x = activation(shape)
    shift = shift_of(x, window)
    check(module.gpu_moments(torch.from_numpy(x), window, shift), moments_reference(x, window, shift))


@pytest.mark.parametrize("name", NAMES)
def test_cross(name: str) -> None:
    window, shape = CASES[name]
    x = activation(shape)
    slide = sliding(window)
    output = output_shape(padded_shape(shape[2:], slide), slide)
    y = 1 + np.random.default_rng(1).standard_normal((len(x), 3 * window.groups, *output), dtype=np.float32)
    shift, target_shift = shift_of(x, window), np.full((window.groups, 3), 1.25, np.float32)
    found = module.gpu_cross(torch.from_numpy(x), torch.from_numpy(y), window, shift, target_shift)
    check_cross(found, cross_reference(x, y, window, shift, target_shift))


def test_a_map_of_any_strides() -> None:
    window, _ = CASES["3x3"]
    x = activation((4, 5, 6, 18)).transpose(0, 3, 1, 2)[:, ::2]
    shift = shift_of(x, window)
    check(module.gpu_moments(torch.from_numpy(x), window, shift), moments_reference(x, window, shift))


def test_more_columns_than_a_tile_holds() -> None:
    window, _ = CASES["3x3"]
    x = activation((2, 16, 4, 4))
    shift = shift_of(x, window)
    check(module.gpu_moments(torch.from_numpy(x), window, shift), moments_reference(x, window, shift))
