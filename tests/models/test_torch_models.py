"""Small variants of the benchmarks' torch models, freshly exported: fused they are valid and compute the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.models.conftest import check_results, error, fused, stock

from sartor.share.artifact import read_model
from sartor.share.inputs import random_inputs

NAMES = ("encoder", "resnet", "mobilenet", "lstm", "decoder")
WORKLOADS = ("bert", "transformer", "dien", "conformer", "crnn", "evoformer", "llama", "unet", "convnext")
QUICK = ("bert", "llama", "convnext")
"""Workloads that take seconds; the others run with all slow tests."""
SIZES = {"batch": 3, "sequence": 17, "source": 11, "target": 9, "sequences": 5, "residues": 13, "time": 67}


def exact(name: str, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Run the torch module in float64."""
    from _models import reference
    from models import make

    return reference(make(name, small=True).module, feed)


def feeds(source: Path) -> list[dict[str, np.ndarray]]:
    """Return inputs of the default sizes, and of others."""
    model = read_model(str(source)).ir
    axes = {dim.value for value in model.graph.inputs for dim in value.shape or () if not isinstance(dim, int)}
    other = {name: (size,) for name, size in SIZES.items() if name in axes}
    return [random_inputs(model, {}, [1]), random_inputs(model, other, [2])]


@pytest.mark.parametrize("measure", [False, True], ids=["unmeasured", "measured"])
@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_export_fuses(name: str, measure: bool, exported: Callable[[str], Path], tmp_path: Path) -> None:
    source, target = exported(name), tmp_path / "fused.onnx"
    plan = fused(source, target, measure, {})
    assert measure or (plan.kept and len(plan.kept) == len(plan.verdicts))
    for feed in feeds(source):
        check_results(source, target, feed, exact(name, feed))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in WORKLOADS]
)
def test_a_workload_fuses(name: str, exported: Callable[[str], Path], tmp_path: Path) -> None:
    source, target = exported(name), tmp_path / "fused.onnx"
    plan = fused(source, target, False, {})
    assert plan.kept
    assert len(plan.kept) == len(plan.verdicts)
    for feed in feeds(source):
        expected = exact(name, feed)
        for output, wide in zip(stock(source).run(None, feed), expected, strict=True):
            assert error(output, wide) < 1e-4
        check_results(source, target, feed, expected)


def test_every_workload_is_tested() -> None:
    import models

    assert set(models.WORKLOADS) == {*WORKLOADS, "mobilenet"}


@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_most_operators_of_a_transformer_are_fused(name: str, exported: Callable[[str], Path], tmp_path: Path) -> None:
    plan = fused(exported(name), tmp_path / "fused.onnx", False, {})
    assert plan.dispatches_before is not None
    assert plan.dispatches_after is not None
    assert plan.dispatches_after < 0.6 * plan.dispatches_before


def test_an_export_is_the_same_every_time(exported: Callable[[str], Path], tmp_path: Path) -> None:
    from models import export

    assert export("resnet", tmp_path, small=True).read_bytes() == exported("resnet").read_bytes()
