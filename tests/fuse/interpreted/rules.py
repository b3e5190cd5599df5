"""Every rule as Triton kernels in all compositions, against the same references as the kernels of numba."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.fuse import test_rules as rules
from tests.kits import fuse_kit as kit
from tests.kits import gpu_kit as gpu

from sartor.tools.fuse.rules import RULES, Kind

MOST_STEPS = 400
"""More would only repeat what the first do, and the interpreter takes its time."""


def pairs() -> list[Any]:
    """Return the samples of the kernels of numba; the default run takes every other one."""
    found = rules._pairs()
    late = [pytest.param(*one.values, id=one.id, marks=pytest.mark.slow) for one in found[1::2]]
    return [*found[::2], *late]


def compare(sample: Any, dtype: Any, outputs: list[Any], feed: dict[str, Any]) -> None:
    """Compare outputs with the reference in float64."""
    wanted = rules.expected(sample, dtype, feed)
    assert len(outputs) == len(wanted)
    for ours, reference in zip(outputs, wanted, strict=True):
        assert ours.dtype == reference.dtype
        assert ours.shape == reference.shape
        name = ours.dtype.name
        slack = 50 if RULES[sample.operator].kind is Kind.REDUCE else 1
        np.testing.assert_allclose(ours, reference, rtol=rules.RTOL.get(name, 0), atol=slack * rules.ATOL.get(name, 0))


@pytest.mark.parametrize(("sample", "dtype"), pairs())
def test_rule(sample: Any, dtype: Any) -> None:
    """Each kernel computes what ONNX defines, at one element, a few and many, none of them the size compiled for."""
    outlined, call = kit.whole(rules.build(sample, dtype))
    written = gpu.kernels(call)
    feeds = [rules.draw(sample, dtype, sizes) for sizes in rules._sizes(sample)]
    if sample.special:
        feeds.append(rules._special(sample, dtype))
    weights = {name: array.astype(dtype) for name, array in sample.weights.items() if array.dtype == np.float32}
    runs = 0
    for feed in feeds:
        given = {**sample.weights, **weights, **feed}
        inputs = [given[str(value.name)] for value in outlined.inputs]
        for kernel in gpu.able(written, inputs, MOST_STEPS):
            compare(sample, dtype, gpu.call(kernel, inputs), feed)
            runs += 1
    assert runs >= len(feeds), "some sizes have no kernel"
