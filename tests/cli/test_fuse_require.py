"""`sartor fuse --require-single-kernel`: exit code 1 and a reason for every node that is outside the kernel."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from tests.kits.fuse_models import blocks, fuse, history


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return the path of the model of blocks."""
    path = tmp_path / "net.onnx"
    onnx.save(blocks(), path)
    return path


def unmet(model: Path, capfd: pytest.CaptureFixture[str], *options: str) -> str:
    """Fuse a model that does not meet a demand, and return the reason that the one line gives."""
    target = model.with_name("fused.onnx")
    assert fuse(model, "-o", target, "--no-measure", *options) == 1
    out, err = capfd.readouterr()
    head, tail = f"sartor fuse: error: {model}: ", ". No model is written; see the plan with --dry-run\n"
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(head)
    assert err.endswith(tail)
    assert not target.exists()
    return err.removeprefix(head).removesuffix(tail)


def test_one_kernel(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    target = model.with_name("fused.onnx")
    demands = ["--require-single-kernel", "*_[ab]", "--require-single-kernel", "Softmax"]
    assert fuse(model, "-o", target, "--no-measure", *demands) == 0
    assert target.exists()
    assert history(target)[0]["parameters"]["require"] == ["*_[ab]", "Softmax"]
    assert capfd.readouterr().err == "3 of 3 groups fused; non-compute operators 4 -> 3\n"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["Gelu"], "1 of 2 nodes like 'Gelu' are outside g0: gelu_e (in g1)"),
        (["*_[abc]"], "1 of 3 nodes like '*_[abc]' are outside g0: matmul_c (no rule for MatMul)"),
        (["Softmax", "--skip", "Softmax"], "1 of 1 nodes like 'Softmax' are in no kernel: softmax_y (not selected)"),
        (["Gelo"], "no node has a name or an operator type like 'Gelo'"),
        (
            ["*"],
            "6 of 8 nodes like '*' are outside g0: matmul_c (no rule for MatMul), add_d (in g1), gelu_e (in g1), "
            "matmul_f (no rule for MatMul), layernormalization_g (in g2), 1 more",
        ),
        (
            ["MatMul", "--require-single-kernel", "Softmax", "--require-single-kernel", "Gelo"],
            "2 of 2 nodes like 'MatMul' are in no kernel: matmul_c (no rule for MatMul), matmul_f (no rule for "
            "MatMul); no node has a name or an operator type like 'Gelo'",
        ),
    ],
)
def test_more_than_one(options: list[str], reason: str, model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert unmet(model, capfd, "--require-single-kernel", *options) == reason


def test_a_group_that_is_left_out_gives_its_reason(
    model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sartor.tools.fuse.judge.GAIN", 1e9)
    target = model.with_name("fused.onnx")
    assert fuse(model, "-o", target, "--require-single-kernel", "Softmax") == 1
    line = capfd.readouterr().err
    assert "1 of 1 nodes like 'Softmax' are in no kernel: softmax_y (g2 is left out: only " in line
    assert " times as fast as onnxruntime). No model is written" in line
    assert not target.exists()


def test_the_plan_is_shown_all_the_same(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report = model.with_name("plan.json")
    demand = ["--require-single-kernel", "Gelu"]
    assert fuse(model, "--dry-run", "--json", "--no-measure", "--report", report, *demand) == 1
    document = json.loads(capfd.readouterr().out)
    assert document["unmet"] == ["1 of 2 nodes like 'Gelu' are outside g0: gelu_e (in g1)"]
    assert json.loads(report.read_text()) == document
    assert fuse(model, "--dry-run", "--json", "--no-measure", "--require-single-kernel", "Softmax") == 0
    assert json.loads(capfd.readouterr().out)["unmet"] == []


def test_nodes_without_names(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plain = blocks()
    for node in plain.graph.node:
        node.name = ""
    path = tmp_path / "net.onnx"
    onnx.save(plain, path)
    reason = unmet(path, capfd, "--require-single-kernel", "Gelu")
    assert reason == "1 of 2 nodes like 'Gelu' are outside g0: Gelu e (in g1)"
