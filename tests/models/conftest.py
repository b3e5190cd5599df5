"""What the tests on whole models share: the benchmarks' modules, small exports, and the checks of a fused file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from tests.conftest import ROOT

from sartor.share.runtime import load, stock_options
from sartor.tools.fuse.fuse import fuse
from sartor.tools.fuse.options import Options
from sartor.tools.fuse.plan import Plan

CLOSE = 1e-5
Arrays = Mapping[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]

# The benchmarks are scripts: they import each other from their own folder.
sys.path.insert(0, str(ROOT / "benchmarks"))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that exports the small variant of a torch model, once."""
    from models import export

    folder = tmp_path_factory.mktemp("exports")
    return cache(lambda name: export(name, folder, small=True))


def fused(source: Path, target: Path, measure: bool, shapes: Shapes) -> Plan:
    """Fuse a model and check what any file has to keep: it is valid and stays as it is for stock onnxruntime."""
    plan = fuse(str(source), str(target), Options(measure=measure, threads=1, shapes=shapes), ["fuse"])
    onnx.checker.check_model(str(target), full_check=True)
    return plan


def stock(path: Path) -> onnxruntime.InferenceSession:
    """Open a model in stock onnxruntime."""
    return onnxruntime.InferenceSession(path, stock_options(1), providers=["CPUExecutionProvider"])


def check_results(source: Path, target: Path, feed: Arrays, expected: Sequence[np.ndarray]) -> None:
    """Compare a fused file with its source in stock onnxruntime, bit by bit, and in our session with float64."""
    original = stock(source).run(None, feed)
    for ours, theirs in zip(stock(target).run(None, feed), original, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs, exact in zip(load(target, threads=1).run(None, feed), original, expected, strict=True):
        # Where the model itself magnifies rounding nobody is as close as 1e-5; then onnxruntime is the measure.
        assert error(ours, exact) <= max(CLOSE, 2 * error(theirs, exact))


def error(actual: np.ndarray, exact: np.ndarray) -> float:
    """Return the largest difference relative to the largest element."""
    assert actual.shape == exact.shape
    return float(np.abs(actual.astype(np.float64) - exact).max() / np.abs(exact).max())
