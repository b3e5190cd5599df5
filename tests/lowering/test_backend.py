"""The node tests of the ONNX standard, run in torch."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.kits import backend_kit
from tests.kits.lowering_kit import fault

EXCLUSIONS = dict(
    line.split(": ", 1) for line in Path(__file__).with_name("exclusions.txt").read_text().splitlines() if line
)
"""What stock onnxruntime passes and torch does not, by name, with the reason."""

UNSETTLED = {"test_attention_4d_causal_fp16_expanded"}
"""What passes or fails by one rounding, as the machine has it."""

LEAST = 1555
"""Node tests that stock onnxruntime passes and that run in torch alone."""

LEAST_BEYOND = 220
"""Node tests that stock onnxruntime fails and that pass in torch."""

pytestmark = [pytest.mark.filterwarnings("ignore::RuntimeWarning"), pytest.mark.filterwarnings("ignore::UserWarning")]


def stock(passes: bool) -> list[str]:
    """Return the cases that stock onnxruntime passes, or fails."""
    return [name for name in backend_kit.cases() if backend_kit.stock_passes(name) == passes]


def test_node_tests_run_in_torch() -> None:
    """All that stock onnxruntime passes, but for the exclusions, which fail."""
    names = stock(passes=True)
    faults = {name: reason for name in names if (reason := fault(name))}
    print(f"{len(names) - len(faults)} of {len(names)} node tests run in torch")
    assert {name: reason for name, reason in faults.items() if name not in EXCLUSIONS} == {}
    assert set(EXCLUSIONS) - set(faults) - UNSETTLED == set()
    assert len(names) - len(faults) >= LEAST


def test_more_node_tests_pass_than_onnxruntime_has_kernels_for() -> None:
    names = stock(passes=False)
    passed = [name for name in names if not fault(name)]
    print(f"{len(passed)} of {len(names)} node tests that onnxruntime fails run in torch")
    assert len(passed) >= LEAST_BEYOND


@pytest.mark.parametrize("name", sorted(set(EXCLUSIONS) - UNSETTLED))
def test_what_torch_can_not_do_onnxruntime_does(name: str) -> None:
    assert fault(name, allow_fallback=True) == ""


def test_exclusions_are_cases() -> None:
    assert set(EXCLUSIONS) <= set(backend_kit.cases())
    assert all(len(reason) > 20 for reason in EXCLUSIONS.values())
