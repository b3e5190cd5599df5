"""The design matrix times the columns of the weight is what torch computes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from sartor.tools.prune.kernels.window import DENSE, Window, columns_of, output_rows, unfold, weight_of

CONVOLUTIONS = [functional.conv1d, functional.conv2d, functional.conv3d]
TRANSPOSED = [functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d]


def window(*axes: tuple[int, int, int, int], groups: int = 1) -> Window:
    """Make a window from kernel, stride, dilation and padding of each axis."""
    kernel, stride, dilation, pad = zip(*axes, strict=True)
    return Window(kernel, stride, dilation, pad, pad, groups)


WINDOWS = {
    "1x1": (window((1, 1, 1, 0), (1, 1, 1, 0)), (5, 3)),
    "3x3": (window((3, 1, 1, 1), (3, 1, 1, 1)), (6, 5)),
    "odd": (window((3, 2, 1, 1), (2, 1, 2, 1)), (7, 6)),
    "strided": (window((3, 2, 1, 1), (3, 2, 1, 1)), (8, 7)),
    "dilated": (window((3, 1, 3, 2)), (13,)),
    "leaping": (window((2, 3, 1, 0)), (10,)),
    "groups": (window((3, 1, 1, 1), (1, 1, 1, 0), groups=2), (4, 3)),
    "depthwise": (window((3, 1, 1, 1), (3, 1, 1, 1), groups=6), (4, 5)),
    "volume": (window((2, 1, 1, 0), (3, 2, 1, 1), (1, 1, 1, 0)), (3, 5, 4)),
    "one row": (window((1, 1, 1, 0), (3, 1, 1, 1)), (1, 1)),
}


def output(x: np.ndarray, weight: np.ndarray, case: Window) -> np.ndarray:
    """Run the layer with torch."""
    arguments: dict[str, Any] = {"padding": case.begin, "stride": case.stride, "dilation": case.dilation}
    if case.transposed:
        arguments["output_padding"] = case.output_padding
    run = (TRANSPOSED if case.transposed else CONVOLUTIONS)[len(case.kernel) - 1]
    return run(torch.from_numpy(x), torch.from_numpy(weight), groups=case.groups, **arguments).numpy()


def check(case: Window, spatial: tuple[int, ...], weight_shape: tuple[int, ...]) -> None:
    """Compare design matrix and columns with the layer."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 6, *spatial))
    weight = rng.standard_normal((*weight_shape, *case.kernel))
    design, columns = unfold(x, case), columns_of(weight, case)
    assert design.shape[::2] == (case.groups, 6 // case.groups * math.prod(case.kernel))
    np.testing.assert_allclose(design @ columns, output_rows(output(x, weight, case), case.groups), atol=1e-12)
    np.testing.assert_array_equal(weight_of(columns, case), weight)


@pytest.mark.parametrize("name", WINDOWS)
def test_conv(name: str) -> None:
    case, spatial = WINDOWS[name]
    check(case, spatial, (12, 6 // case.groups))


@pytest.mark.parametrize("name", WINDOWS)
def test_conv_transpose(name: str) -> None:
    case, spatial = WINDOWS[name]
    extra = tuple(min(s, 2) - 1 for s in case.stride)
    check(replace(case, transposed=True, output_padding=extra), spatial, (6, 12 // case.groups))


def test_dense() -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((7, 5)), rng.standard_normal((5, 4))
    np.testing.assert_array_equal(unfold(x, DENSE), x[None])
    np.testing.assert_array_equal(columns_of(weight, DENSE), weight[None])
    np.testing.assert_array_equal(weight_of(weight[None], DENSE), weight)


def test_asymmetric_padding() -> None:
    case = Window((3,), (2,), (1,), (0,), (2,))
    x = np.arange(5.0).reshape(1, 1, 5)
    assert unfold(x, case)[0].tolist() == [[0, 1, 2], [2, 3, 4], [4, 0, 0]]
