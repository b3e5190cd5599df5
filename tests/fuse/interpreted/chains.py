"""Random graphs as Triton kernels, against the same graphs in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator
from tests.fuse import test_random_chains as plain
from tests.kits import fuse_kit as kit
from tests.kits import gpu_kit as gpu
from tests.kits import random_chains as chains

from sartor.tools.fuse.axes import NotEmittableError
from sartor.tools.fuse.kernel import kernel_source

FEW, MANY = 60, 240
SIZES = ((1, 1), (3, 5), (7, 2))
"""Small ones, because the interpreter takes microseconds for what a processor does in none."""
MOST_STEPS = 200


def check(seed: int, compositions: int) -> bool:
    """Compare some compositions of a random chain with float64; tell whether there is a kernel."""
    chain, outputs = chains.random_chain(seed)
    outlined, call = kit.whole(plain.build(chain, outputs, np.float32))
    try:
        written = gpu.kernels(call)
    except NotEmittableError:
        with pytest.raises(NotEmittableError):
            kernel_source(call)
        return False
    reference = ReferenceEvaluator(plain.build(chain, outputs, np.float64))
    names = [str(value.name) for value in outlined.outputs]
    runs = 0
    for i, (n, m) in enumerate(SIZES):
        feed = chains.draw(chain, {"n": n, "m": m}, seed + i)
        wide = {name: array.astype(np.float64) for name, array in feed.items()}
        wanted = dict(zip(outputs, reference.run(None, wide), strict=True))
        inputs = [{**chain.weights, **feed}[str(value.name)] for value in outlined.inputs]
        able = gpu.able(written, inputs, MOST_STEPS)
        for kernel in [*able[i:], *able[:i]][:compositions]:
            _compare(names, gpu.call(kernel, inputs), wanted)
            runs += 1
    if not runs:
        pytest.skip("too many steps for the interpreter")
    return True


def _compare(names: list[str], ours: list[Any], wanted: dict[str, Any]) -> None:
    for name, array in zip(names, ours, strict=True):
        plain._compare(array, np.asarray(wanted[name]))


@pytest.mark.parametrize("seed", range(FEW))
def test_chain(seed: int) -> None:
    """Kernels of a random chain compute what the chain does; where numba has one, Triton has."""
    if not check(seed, 1):
        pytest.skip("no kernel")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FEW, FEW + MANY))
def test_more_chains(seed: int) -> None:
    """The same for many more, in all compositions."""
    if not check(seed, 6):
        pytest.skip("no kernel")
