"""The plans of small models as committed text, and how many operators they leave to run.

A plan names what torch.onnx.export names and depends on what onnxruntime optimises by itself, so that texts and exact
counts are those of the versions in constraints.txt, with AVX-512 or without. CONTRIBUTING.md says how to write the
texts anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from tests.conftest import ROOT

from sartor.share.artifact import read_model
from sartor.share.kernels.machine import has_feature
from sartor.tools.fuse import places
from sartor.tools.fuse.coefficients import DEFAULTS
from sartor.tools.fuse.fuse import fuse
from sartor.tools.fuse.options import Options
from sartor.tools.fuse.plan import Plan
from sartor.tools.fuse.report import as_text
from sartor.tools.fuse.stock import view

GOLDEN = Path(__file__).with_name("golden")
UPDATE = os.environ.get("SARTOR_UPDATE_GOLDEN") == "1"
DECISIVE = ("torch", "onnxscript", "onnxruntime")
"""Packages whose versions show in a plan."""

BLOCK = 16 if has_feature("avx512f") else 8
"""Channels of a block in onnxruntime's layout NCHWc; a convolution whose channels fill none takes no operators in."""

DISPATCHES = {"encoder": (49, 17), "decoder": (127, 34), "resnet": (12, 10), "mobilenet": (17, 17), "crnn": (354, 27)}
"""Non-compute operators that onnxruntime runs of the file as it is, and of the fused model."""

if BLOCK == 8:
    DISPATCHES |= {"resnet": (3, 3), "mobilenet": (16, 16), "crnn": (351, 24)}

KERNELS = {"encoder": 14, "decoder": 13, "resnet": 3, "mobilenet": 3, "crnn": 15}

BERT_BEFORE, BERT_MOST, BERT_KERNELS = 280, 84, 74


@pytest.fixture(autouse=True)
def uncalibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan with the coefficients that ship, also where the cache holds a calibration."""
    monkeypatch.setattr(places, "coefficients", lambda: DEFAULTS)


def pinned() -> bool:
    """Tell whether the packages that show in a plan are those of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    wanted = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return all(version(name).partition("+")[0] == wanted[name] for name in DECISIVE)


def planned(source: Path, **sizes: int) -> Plan:
    """Plan as `sartor fuse --dry-run --no-measure --no-verify -@ 1` does."""
    shapes = {name: (size,) for name, size in sizes.items()}
    return fuse(str(source), None, Options(measure=False, verify=False, threads=1, shapes=shapes), None)


def golden_of(name: str) -> Path:
    """Return the file of a plan, that of this processor's block where plans differ."""
    own = GOLDEN / f"{name}-nchwc{BLOCK}.txt"
    return own if own.exists() else GOLDEN / f"{name}.txt"


def dispatches(source: Path) -> int:
    """Count the non-compute operators that stock onnxruntime runs of a file, before we touch it."""
    count = view(read_model(str(source)).ir).dispatches
    assert count is not None
    return count


def plan_text(plan: Plan) -> str:
    """Return the plan for people without the counts, which are compared apart."""
    return re.sub(r"; non-compute operators .*", "", as_text(plan)) + "\n"


@pytest.mark.skipif(not pinned(), reason="other versions than those of constraints.txt")
@pytest.mark.parametrize("name", DISPATCHES)
def test_a_plan_is_the_committed_one(name: str, exported: Callable[[str], Path]) -> None:
    plan, golden = planned(exported(name)), golden_of(name)
    if UPDATE:
        golden.write_text(plan_text(plan), encoding="utf-8")
    assert plan_text(plan) == golden.read_text(encoding="utf-8"), "see CONTRIBUTING.md, golden plans"
    assert (dispatches(exported(name)), plan.dispatches_after) == DISPATCHES[name]


@pytest.mark.parametrize("name", KERNELS)
def test_a_plan_has_few_kernels(name: str, exported: Callable[[str], Path]) -> None:
    plan = planned(exported(name))
    assert len(plan.kept) == len(plan.verdicts) <= KERNELS[name]
    assert plan.dispatches_after is not None
    assert plan.dispatches_after <= dispatches(exported(name))


def test_every_golden_plan_is_compared() -> None:
    assert {path.stem.partition("-")[0] for path in GOLDEN.glob("*.txt")} == set(DISPATCHES)


@pytest.mark.slow
def test_bert_needs_few_kernels(tmp_path: Path) -> None:
    from models import export

    source = export("bert", tmp_path)
    plan = planned(source, batch=1, sequence=128)
    assert plan.dispatches_after is not None
    assert dispatches(source) > BERT_BEFORE
    assert plan.dispatches_after <= BERT_MOST
    assert len(plan.kept) <= BERT_KERNELS
