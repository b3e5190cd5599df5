"""The node tests of the ONNX standard, before and after `fuse`, and with the whole graph as one function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
from tests.kits import backend_kit as kit

from sartor.tools.fuse import regions

EXCLUSIONS = dict(
    line.split(": ", 1) for line in Path(__file__).with_name("backend_exclusions.txt").read_text().splitlines()
)
"""What stock onnxruntime passes and is left out all the same, as `variant case`, with the reason."""

LEAST_PASSED, LEAST_FUSED, LEAST_WHOLE = 1550, 830, 660
"""Node tests that stock onnxruntime passes, that hold a group, and that are one kernel altogether."""

pytestmark = [
    pytest.mark.filterwarnings("error::RuntimeWarning:sartor"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning:onnx"),
]


def _parameters() -> list[Any]:
    chosen = kit.default_names()
    marks = {True: (), False: (pytest.mark.slow,)}
    return [pytest.param(name, marks=marks[name in chosen]) for name in kit.cases()]


@pytest.fixture(autouse=True)
def every_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the groups that are not worth it: one light operator, plain copying, free operators at the edges."""

    def untrimmed(nodes: Sequence[ir.Node], free: frozenset[str] = frozenset()) -> list[ir.Node]:
        return list(nodes)

    monkeypatch.setattr(regions, "_worth", lambda nodes: True)
    monkeypatch.setattr(regions, "trim", untrimmed)


@pytest.mark.parametrize("name", _parameters())
def test_case(name: str) -> None:
    """What stock onnxruntime passes also passes fused, as one function, and as one with its parameters constant."""
    if not kit.stock_passes(name):
        pytest.skip("stock onnxruntime fails it")
    case = kit.cases()[name]
    if f"fused {name}" not in EXCLUSIONS:
        model, groups = kit.fused(case)
        kit.run(case, model, groups > 0)
    if f"whole {name}" in EXCLUSIONS:
        return
    parameters = kit.parameters(case)
    for constants in ({}, parameters) if parameters else ({},):
        model, emittable = kit.whole(case, constants)
        kit.run(case, model, emittable)


def test_enough_cases_run_a_kernel() -> None:
    """Most of the suite is within reach: without this, fusing nothing would pass it."""
    passing = [case for name, case in kit.cases().items() if kit.stock_passes(name)]
    assert len(passing) >= LEAST_PASSED
    assert sum(kit.fused(case)[1] > 0 for case in passing) >= LEAST_FUSED
    assert sum(kit.whole(case, kit.parameters(case))[1] for case in passing) >= LEAST_WHOLE


def test_exclusions_are_cases() -> None:
    """Every exclusion names a variant of a case and gives a reason."""
    assert set(EXCLUSIONS) <= {f"{variant} {name}" for name in kit.cases() for variant in ("fused", "whole")}
    assert all(len(reason) > 20 for reason in EXCLUSIONS.values())
