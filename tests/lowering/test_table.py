"""The table of operators and its guide."""

from __future__ import annotations

import re

import onnx
import pytest
from tests.conftest import ROOT

from sartor.share.lowering import operators
from sartor.share.lowering.registry import RULES

GUIDE = (ROOT / "docs" / "lowering.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def rules() -> None:
    """Fill the table."""
    operators.load()


def test_the_guide_lists_all_operators_and_no_others() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", GUIDE, re.MULTILINE))
    listed = [name for row in rows.values() for name in re.findall(r"`([\w.]+)`", row)]
    assert list(rows) == list(operators.KINDS)
    assert len(listed) == len(set(listed))
    assert set(listed) == {f"{domain}.{name}" if domain else name for domain, name in RULES}


def test_the_rule_in_the_guide_is_real() -> None:
    (shown,) = re.findall(r"```text\n(@.*?)```", GUIDE, re.DOTALL)
    assert shown.strip() in (ROOT / "share" / "lowering" / "operators" / "movement.py").read_text(encoding="utf-8")


def test_every_rule_is_for_an_operator_of_the_standard() -> None:
    known = {(schema.domain, schema.name) for schema in onnx.defs.get_all_schemas_with_history()}
    # onnxruntime keeps this one in the domain of the standard.
    assert set(RULES) - known == {("", "SimplifiedLayerNormalization")}
