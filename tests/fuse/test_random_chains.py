"""Kernels of random graphs against the same graphs in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from tests.kits import fuse_kit as kit
from tests.kits import random_chains as chains

from sartor.tools.fuse.axes import NotEmittableError
from sartor.tools.fuse.kernel import kernel_source

Array = np.ndarray[Any, Any]

FEW, MANY = 60, 600
LEAST_SHARE = 0.7
"""Of the chains that must have a kernel."""


def build(chain: Any, outputs: list[str], dtype: Any) -> onnx.ModelProto:
    """Make the model of a chain."""
    inputs = {name: (dtype, shape) for name, shape in chain.inputs.items()}
    return kit.model(chain.nodes, inputs, outputs, chain.weights)


def check(seed: int) -> bool:
    """Compare the kernel of a random chain with float64 for several sizes; tell whether there is a kernel."""
    chain, outputs = chains.random_chain(seed)
    try:
        outlined, call = kit.whole(build(chain, outputs, np.float32))
        kernel = kit.compiled(call)
    except NotEmittableError:
        return False
    reference = ReferenceEvaluator(build(chain, outputs, np.float64))
    names = [str(value.name) for value in outlined.outputs]
    for i, (n, m) in enumerate(zip(*chains.SIZES.values(), strict=True)):
        feed = chains.draw(chain, {"n": n, "m": m}, seed + i)
        ours = kit.call(kernel, [{**chain.weights, **feed}[str(value.name)] for value in outlined.inputs], seed + i)
        wide = {name: array.astype(np.float64) for name, array in feed.items()}
        wanted = dict(zip(outputs, reference.run(None, wide), strict=True))
        for name, array in zip(names, ours, strict=True):
            _compare(array, np.asarray(wanted[name]))
    return True


def _compare(ours: Array, wanted: Array) -> None:
    assert ours.shape == wanted.shape
    scale = float(np.abs(wanted).max(initial=1.0))
    # A rounding before Floor may cost a whole unit in a few elements; a wrong index costs most of them.
    far = np.abs(ours - wanted) > 1e-4 * scale
    assert far.mean() < 0.02 or far.sum() <= 1, f"{far.sum()} of {far.size} elements differ"


def _has_kernel(seed: int) -> bool:
    chain, outputs = chains.random_chain(seed)
    try:
        kernel_source(kit.whole(build(chain, outputs, np.float32))[1])
    except NotEmittableError:
        return False
    return True


def test_most_chains_have_a_kernel() -> None:
    """Without this, kernels for nothing would pass."""
    assert sum(_has_kernel(seed) for seed in range(200)) >= LEAST_SHARE * 200


@pytest.mark.parametrize("seed", range(FEW))
def test_chain(seed: int) -> None:
    """A kernel of a random chain computes what the chain does, or there is none."""
    if not check(seed):
        pytest.skip("no kernel")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FEW, FEW + MANY))
def test_more_chains(seed: int) -> None:
    """The same for many more."""
    if not check(seed):
        pytest.skip("no kernel")
