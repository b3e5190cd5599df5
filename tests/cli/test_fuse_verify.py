"""`sartor fuse --verify`: kernels that compute something else are left out, and what was not compared is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from tests.kits.fuse_models import assert_same_results, blocks, calls, fuse, history, plan_of, save

from sartor.tools.fuse import kernel
from sartor.tools.fuse import verify as stage

Render = Callable[[Any], str]
KEYS = ["checked", "max_error", "bound", "reference", "runs", "reason"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return the path of the model of blocks."""
    path = tmp_path / "net.onnx"
    onnx.save(blocks(), path)
    return path


def spoil(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """Let every kernel that contains a piece of source be compiled with another one."""
    render: Render = kernel.render
    monkeypatch.setattr(kernel, "render", lambda schedule: render(schedule).replace(old, new))


def test_right_kernels(model: Path, root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    document = plan_of(capfd, model, "--no-measure")
    described = (root / "docs" / "json.md").read_text(encoding="utf-8").replace("`, `", "` | `")
    for group in document["groups"]:
        found = group["verified"]
        assert list(found) == KEYS
        assert (found["checked"], found["reference"], found["runs"], found["reason"]) == (True, "float64", 4, "")
        assert 0 <= found["max_error"] <= found["bound"] < 1e-4
    assert document["verification"] == {"checked": 2, "failed": [], "skipped": {}}
    assert [key for key in ("verified", "verification", *KEYS) if f"`{key}`" not in described] == []
    assert fuse(model, "--dry-run", "--no-measure") == 0
    assert capfd.readouterr().out.count("  4 runs against float64: error ") == 3


@pytest.mark.parametrize("options", [("--no-measure",), ()], ids=["unmeasured", "measured"])
def test_a_wrong_kernel_is_left_out(
    options: tuple[str, ...], model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil(monkeypatch, "gelu_f32(", "silu_f32(")
    target, report = model.with_name("fused.onnx"), model.with_name("report.json")
    assert fuse(model, "-o", target, "--report", report, *options) == 0
    document = json.loads(report.read_text())
    first, second, third = document["groups"]
    if options:
        warning, headline = capfd.readouterr().err.splitlines()
        assert warning.startswith(f"sartor fuse: warning: {model}: the kernel of {first['function']} gives other")
        assert headline.startswith("1 of 3 groups fused")
        assert calls(target) == [third["function"]]
        assert document["verification"]["failed"] == [first["function"]]
    if not options or first["verified"]["checked"]:
        assert first["kept"] is False
    if first["verified"]["checked"]:
        assert first["reason"].startswith("its kernel gives other results: ")
        assert first["reason"].endswith(" is allowed")
        assert first["verified"] == second["verified"]
        assert first["verified"]["max_error"] > first["verified"]["bound"]
    assert first["function"] not in calls(target)
    monkeypatch.undo()
    assert_same_results(target, model, kernels=None)


def test_a_small_error_is_seen(model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    spoil(monkeypatch, "9.99999974e-06", "2e-05")
    spoil(monkeypatch, "exp_f32(", "1.00005 * exp_f32(")
    document = plan_of(capfd, model, "--no-measure", "--only", "Softmax")
    # A factor of all exponentials cancels out of a softmax.
    assert document["groups"][0]["kept"] is True
    spoil(monkeypatch, "exp_f32(", "0.0001 + exp_f32(")
    document = plan_of(capfd, model, "--no-measure", "--only", "Softmax")
    assert document["groups"][0]["kept"] is False


def test_a_kernel_that_refuses_is_left_out(
    model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil(monkeypatch, "if begin < 0:", "if begin < 0 and dims[0] == 7:\n        return 1\n    if begin < 0:")
    document = plan_of(capfd, model, "--no-measure", "--only", "Softmax")
    (group,) = document["groups"]
    assert group["kept"] is False
    assert group["reason"] == "its kernel gives other results: none at all for x0 [7, 8, 32]"
    assert (group["verified"]["checked"], group["verified"]["max_error"]) == (True, None)


def test_results_are_remembered(
    model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    document = plan_of(capfd, model, "--no-measure")
    monkeypatch.setattr(stage, "_compared", None)
    assert plan_of(capfd, model, "--no-measure") == document


def test_what_the_time_does_not_allow_is_said(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SARTOR_CACHE_DIR", str(tmp_path / "cold"))
    monkeypatch.setattr(stage, "SECONDS", -1.0)
    assert fuse(model, "-o", tmp_path / "fused.onnx", "--no-measure", "--report", tmp_path / "plan.json") == 0
    warning = f"sartor fuse: warning: {model}: kernels left unverified: 2 (not within 6 seconds). Run it again to go on"
    assert capfd.readouterr().err.splitlines()[0] == warning
    document = json.loads((tmp_path / "plan.json").read_text())
    assert document["verification"]["checked"] == 0
    assert set(document["verification"]["skipped"].values()) == {"not within 6 seconds"}
    assert {group["kept"] for group in document["groups"]} == {True}
    assert {group["verified"]["reason"] for group in document["groups"]} == {"not within 6 seconds"}


def test_a_comparison_that_takes_long_is_cut_short(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SARTOR_CACHE_DIR", str(tmp_path / "cold"))
    monkeypatch.setattr(stage, "SECONDS", 1e-9)
    document = plan_of(capfd, model, "--no-measure")
    assert [group["verified"]["runs"] for group in document["groups"]] == [2, 2, 0]
    assert document["verification"]["checked"] == 1
    assert list(document["verification"]["skipped"]) == [document["groups"][2]["function"]]


def test_no_verify(model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(stage, "_compared", None)
    document = plan_of(capfd, model, "--no-measure", "--no-verify")
    assert {group["verified"]["reason"] for group in document["groups"]} == {"not asked for"}
    assert document["verification"]["checked"] == 0
    assert set(document["verification"]["skipped"].values()) == {"not asked for"}
    target = model.with_name("fused.onnx")
    assert fuse(model, "-o", target, "--no-measure", "--no-verify", "-q") == 0
    assert history(target)[0]["parameters"]["verify"] is False


def test_without_a_reference_onnxruntime_is_one(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SARTOR_CACHE_DIR", str(tmp_path / "cold"))
    monkeypatch.setattr("sartor.share.double.run_twin", None)
    document = plan_of(capfd, model, "--no-measure", "--only", "Softmax")
    (group,) = document["groups"]
    assert (group["verified"]["reference"], group["verified"]["checked"]) == ("onnxruntime", True)
    assert group["verified"]["bound"] == pytest.approx(1024 * 2**-23)
    spoil(monkeypatch, "exp_f32(", "0.001 + exp_f32(")
    document = plan_of(capfd, model, "--no-measure", "--only", "Softmax")
    assert document["verification"]["failed"] == [document["groups"][0]["function"]]


HEAD = '<ir_version: 10, opset_import: ["" : 20]>'


def test_indices_stay_in_range(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = f"""{HEAD} g (int64[n] i, float[5, 8] t, float[n, 8] x) => (float[n, 8] y) {{
        a = Gather(t, i)  b = Add(a, x)  y = Tanh(b) }}"""
    document = plan_of(capfd, save(tmp_path / "net.onnx", text), "--no-measure")
    (group,) = document["groups"]
    assert (group["verified"]["checked"], group["verified"]["runs"]) == (True, 6)


@pytest.mark.parametrize("seed", range(4))
def test_a_body_that_loses_digits_is_no_failure(seed: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = f"""{HEAD} g (float[n, 500] x) => (float[n, 500] y) {{
        b = Constant<value = float {{30}}>()  one = Constant<value = int64[1] {{1}}>()  h = Add(x, b)
        m = ReduceMean(h, one)  mm = Mul(m, m)  hh = Mul(h, h)  s = ReduceMean(hh, one)  v = Sub(s, mm)
        d = Sub(h, m)  r = Sqrt(v)  y = Div(d, r) }}"""
    document = plan_of(capfd, save(tmp_path / "net.onnx", text), "--no-measure", "--seed", str(seed))
    (group,) = document["groups"]
    assert (group["kept"], group["verified"]["reference"]) == (True, "float64")
    assert 1e-5 < group["verified"]["bound"] < 1e-2


def test_a_body_without_numbers_is_not_compared(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = f"""{HEAD} g (float[n] x) => (float[n] y) {{
        a = Exp(x)  b = Neg(a)  c = Sqrt(b)  y = Tanh(c) }}"""
    document = plan_of(capfd, save(tmp_path / "net.onnx", text), "--no-measure")
    (group,) = document["groups"]
    assert group["kept"] is True
    assert group["verified"]["reason"] == "no number comes out of it on random inputs"


def test_sizes_are_shrunk_and_odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.kits import fuse_kit as kit

    from sartor.tools.fuse.group import find_groups
    from sartor.tools.fuse.options import Selection

    text = f"{HEAD} g (float[a, b, 16] x, float[b, 16] z) => (float[a, b, 16] y) {{ s = Add(x, z)  y = Tanh(s) }}"
    (group,), _ = find_groups(kit.typed(onnx.parser.parse_model(text)), frozenset(), Selection())
    shapes = stage.trial_shapes(group, {"a": 1000, "b": 10})
    assert shapes[1:] == [{"x0": (7, 5, 16), "x1": (5, 16)}, {"x0": (1, 1, 16), "x1": (1, 16)}]
    a, b, _ = shapes[0]["x0"]
    assert stage.ELEMENTS / 4 < 16 * a * b <= stage.ELEMENTS
    assert stage.trial_shapes(group, {"a": 1, "b": 1}) == [shapes[2], shapes[1]]
    assert stage.trial_shapes(group, {}) == shapes[1:]
    monkeypatch.setattr(stage, "LARGEST", 100)
    assert stage.trial_shapes(group, {}) == shapes[2:]
