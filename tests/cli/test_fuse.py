"""`sartor fuse` in the hands of a user: options, streams, documents, and what becomes of a model."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.conftest import RunSartor
from tests.kits.fuse_models import (
    assert_same_results,
    blocks,
    calls,
    feed_for,
    fuse,
    fused,
    history,
    plan_of,
    save,
    stock_outputs,
)

import sartor as package
from sartor.share import console
from sartor.share.runtime import kernels_of

DOCUMENT_KEYS = [
    "schema", "dispatches_before", "dispatches_after", "coefficients", "rank_correlation", "groups", "refused",
    "verification", "unmet",
]  # fmt: skip
GROUP_KEYS = [
    "id", "function", "nodes", "composition", "bytes_saved", "predicted_us", "launches", "measured_us", "baseline_us",
    "kept", "reason", "verified",
]  # fmt: skip
MEMBERS = [["add_a", "gelu_b"], ["add_d", "gelu_e"], ["layernormalization_g", "softmax_y"]]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return the path of the model of blocks."""
    path = tmp_path / "net.onnx"
    onnx.save(blocks(), path)
    return path


def shell(script: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Run shell lines with the installed command first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-euo", "pipefail", "-c", script]
    return subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True)


def test_the_fused_model_is_valid_and_computes_the_same(model: Path) -> None:
    target = fused(model)
    assert_same_results(target, model, kernels=2)
    proto = onnx.load(target)
    assert proto.ir_version == 10
    assert {item.domain: item.version for item in proto.opset_import} == {"": 20, "sartor.fuse": 1}
    first, second, third = calls(target)
    assert first == second != third
    assert {function.name for function in proto.functions} == {first, third}
    assert [node.op_type for node in proto.graph.node if node.domain == ""] == ["MatMul", "MatMul"]


def test_dry_run_document(model: Path, root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    document = plan_of(capfd, model, "--no-measure")
    assert list(document) == DOCUMENT_KEYS
    assert (document["coefficients"], document["rank_correlation"]) == ("defaults", None)
    assert (document["schema"], document["dispatches_before"], document["dispatches_after"]) == (1, 4, 3)
    assert [list(group) for group in document["groups"]] == [GROUP_KEYS] * 3
    described = (root / "docs" / "json.md").read_text(encoding="utf-8")
    assert [key for key in (*document, *GROUP_KEYS) if f"| `{key}` |" not in described.replace("`, `", "` | `")] == []
    assert [group["nodes"] for group in document["groups"]] == MEMBERS
    assert [group["id"] for group in document["groups"]] == ["g0", "g1", "g2"]
    assert [group["composition"] for group in document["groups"]] == ["thread", "thread", "warp"]
    assert [group["bytes_saved"] for group in document["groups"]] == [2 * 8 * 32 * 4] * 3
    assert all(group["predicted_us"] > 0 and group["launches"] == [] for group in document["groups"])
    unmeasured = {(g["measured_us"], g["baseline_us"], g["kept"], g["reason"]) for g in document["groups"]}
    assert unmeasured == {(None, None, True, "not measured")}
    assert document["refused"] == {"matmul_c": "no rule for MatMul", "matmul_f": "no rule for MatMul"}


def test_measured_document(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for group in plan_of(capfd, model)["groups"]:
        ratio = group["baseline_us"] / group["measured_us"]
        assert group["measured_us"] > 0
        assert isinstance(group["kept"], bool)
        if group["kept"]:
            times, _, rest = group["reason"].partition(" ")
            assert rest == "times as fast as onnxruntime"
            # Both were rounded.
            assert float(times) == pytest.approx(ratio, abs=0.01, rel=0.01)


def test_dry_run_as_text(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert fuse(model, "--dry-run", "--no-measure") == 0
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert (err, [path.name for path in model.parent.iterdir()]) == ("", ["net.onnx"])
    assert lines[0] == "3 of 3 groups fused; non-compute operators 4 -> 3"
    assert lines[1:3] == ["", f"g0 {calls(fused(model))[0]} fused: not measured"]
    assert lines[4].startswith("  4 runs against float64: error ")
    assert [lines[3], *lines[5:7]] == [
        "  2 nodes, thread composition, 2048 bytes of traffic saved",
        "  operators: Add, Gelu",
        "  nodes: add_a gelu_b",
    ]
    assert lines[-2:] == ["not fusable:", "  2 x no rule for MatMul"]


@pytest.mark.parametrize(
    ("options", "groups"),
    [
        (["--only", "Gelu"], [["gelu_b"], ["gelu_e"]]),
        (["--only", "*_b", "--only", "add_a"], MEMBERS[:1]),
        (["--only", "*", "--skip", "LayerN*"], [*MEMBERS[:2], ["softmax_y"]]),
        (["--skip", "Softmax", "--skip", "gelu_?", "--skip", "add_*"], [["layernormalization_g"]]),
    ],
)
def test_globs_choose_nodes(
    options: list[str], groups: list[list[str]], model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    document = plan_of(capfd, model, "--no-measure", *options)
    assert [group["nodes"] for group in document["groups"]] == groups
    chosen = {name for group in groups for name in group}
    others = {name for group in MEMBERS for name in group} - chosen
    assert {name for name, reason in document["refused"].items() if reason == "not selected"} >= others


def test_a_glob_that_matches_nothing_is_named(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert fuse(model, "--dry-run", "--no-measure", "--skip", "Gelo", "--skip", "Gelu") == 0
    warning = f"sartor fuse: warning: {model}: no node has a name or an operator type like 'Gelo'\n"
    assert capfd.readouterr().err == warning


def test_the_report_is_the_document_of_the_dry_run(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report, target = model.with_name("report.json"), model.with_name("fused.onnx")
    document = plan_of(capfd, model)
    assert fuse(model, "-o", target, "--report", report) == 0
    assert capfd.readouterr().out == ""
    assert json.loads(report.read_text()) == document
    assert fuse(model, "-o", target, "--json", "-q") == 0
    out, err = capfd.readouterr()
    assert (json.loads(out), err) == (document, "")


def test_streams_and_verbosity(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    target = model.with_name("fused.onnx")
    headline = "3 of 3 groups fused; non-compute operators 4 -> 3\n"
    assert fuse(model, "-o", target, "--no-measure") == 0
    assert capfd.readouterr() == ("", headline)
    assert fuse(model, "-o", target, "--no-measure", "-q") == 0
    assert capfd.readouterr() == ("", "")
    assert fuse(model, "-o", target, "--no-measure", "-v") == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(headline + headline)
    assert "  nodes: layernormalization_g softmax_y\n" in err


def test_pipes(model: Path) -> None:
    done = shell("sartor fuse - -q --no-measure --no-history < net.onnx > piped.onnx", model.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert model.with_name("piped.onnx").read_bytes() == fused(model, "--no-history").read_bytes()
    done = shell("cat net.onnx | sartor fuse --no-measure -q | sartor inspect - --json", model.parent)
    assert done.returncode == 0, done.stderr
    assert [group["calls"] for group in json.loads(done.stdout)["groups"]] in ([1, 2], [2, 1])


@pytest.mark.parametrize("options", [("--no-measure",), ()], ids=["unmeasured", "measured"])
def test_the_same_bytes_twice(options: tuple[str, ...], model: Path) -> None:
    target, before = model.with_name("fused.onnx"), b""
    for _ in range(2):
        assert fuse(model, "-o", target, "-q", *options) == 0
        before, first = target.read_bytes(), before
    assert before == first


def test_history(model: Path, sartor: RunSartor) -> None:
    first, second = model.with_name("a.onnx"), model.with_name("b.onnx")
    command = ["-o", first, "--only", "Gelu", "--shape", "batch=2", "--seed", "7", "-@", "1", "-q"]
    assert sartor("fuse", model, *command).returncode == 0
    (record,) = history(first)
    written = shlex.split("fuse net.onnx -o a.onnx --only Gelu --shape batch=2 --seed 7 -@ 1 -q")
    assert (record["tool"], record["version"], record["argv"]) == ("fuse", package.__version__, written)
    assert (record["seed"], record["previous"]) == (7, None)
    parameters = {
        "only": ["Gelu"], "skip": [], "measure": True, "verify": True, "require": [], "threads": 1,
        "shapes": {"batch": [2]}, "plan": "search", "device": "cpu",
    }  # fmt: skip
    assert record["parameters"] == parameters
    assert fuse(first, "-o", second, "--no-measure", "-q") == 0
    assert [entry["previous"] for entry in history(second)] == [None, record["id"]]
    assert history(fused(model, "--no-history")) == []


def test_sizes_count(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    one, four = (plan_of(capfd, model, "--no-measure", "--shape", f"batch={n}")["groups"] for n in (1, 4))
    assert [group["bytes_saved"] for group in four] == [4 * group["bytes_saved"] for group in one]
    whole = plan_of(capfd, model, "--no-measure", "--shape", "x=4,8,32")["groups"]
    assert whole == four


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--json"], "model, plan, report and library can't share stdout. Name files for all but one"),
        (["--report", "-"], "model, plan, report and library can't share stdout. Name files for all but one"),
        (["--shape", "q=1", "--dry-run"], "--shape q: no such input or axis. The inputs are x"),
        (["--shape", "batch", "--dry-run"], "--shape batch: a shape is a name, an equals sign and sizes. Write it as"),
        (["--threads", "0"], "invalid value for '-@' / '--threads': 0 is not in the range x>=1. See `sartor fuse"),
        (["--seed", "-1"], "invalid value for '--seed': -1 is not in the range x>=0. See `sartor fuse --help`"),
        (["--fast"], "no such option: --fast. See `sartor fuse --help`"),
    ],
)
def test_wrong_use_is_one_line(options: list[str], reason: str, model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert fuse(model, *options) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"sartor fuse: error: {reason}")


def test_a_model_without_groups_passes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    head = '<ir_version: 8, opset_import: ["" : 20]>'
    path = save(
        tmp_path / "net.onnx", f"{head} g (float[n, 4] x, float[4, 2] w) => (float[n, 2] y) {{y = MatMul(x, w)}}"
    )
    assert plan_of(capfd, path)["groups"] == []
    target = fused(path)
    feed = feed_for(path)
    np.testing.assert_array_equal(stock_outputs(target, feed)[0], stock_outputs(path, feed)[0])
    assert onnx.load(target).ir_version == 8


def test_fusing_twice_changes_nothing(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    once = fused(model)
    assert plan_of(capfd, once, "--no-measure")["groups"] == []
    twice = fused(once)
    assert calls(twice) == calls(once)
    assert onnx.load(twice).functions == onnx.load(once).functions
    assert_same_results(twice, model, kernels=2)


def test_fusing_the_rest_later_gives_the_same(model: Path) -> None:
    first, second = fused(model, "--only", "Softmax"), model.with_name("second.onnx")
    assert fuse(first, "-o", second, "--no-measure", "-q") == 0
    assert_same_results(second, model, kernels=3)
    names = [node.name for node in onnx.load(second).graph.node]
    assert len(set(names)) == len(names)


def test_kernels_are_found_after_another_tool_rewrote_the_file(model: Path, tmp_path: Path) -> None:
    proto = onnx.load(fused(model))
    del proto.graph.value_info[:], proto.metadata_props[:]
    for node in proto.graph.node:
        del node.metadata_props[:]
    for function in proto.functions:
        del function.value_info[:], function.metadata_props[:]
        function.doc_string = "rewritten"
        inner = {name for node in function.node for name in node.output if name not in function.output}
        for node in function.node:
            node.name = ""
            for names in (node.input, node.output):
                names[:] = [f"{name}_renamed" if name in inner else name for name in names]
    onnx.save(proto, tmp_path / "rewritten.onnx")
    assert_same_results(tmp_path / "rewritten.onnx", model, kernels=2)


def test_segments_take_the_place_of_the_library(
    model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SARTOR_RUNTIME", "segments")
    document = plan_of(capfd, model, "--no-measure")
    assert (document["dispatches_before"], document["dispatches_after"]) == (4, 3)
    target = model.with_name("fused.onnx")
    assert fuse(model, "-o", target, "-q") == 0
    session, feed = package.load(fused(model)), feed_for(model)
    assert len(kernels_of(session)) == 2
    np.testing.assert_allclose(session.run(None, feed)[0], stock_outputs(model, feed)[0], rtol=1e-5, atol=1e-6)


def test_an_unwritable_cache_is_a_warning(model: Path, sartor: RunSartor) -> None:
    environment = {**os.environ, "SARTOR_CACHE_DIR": "/proc/none/cache"}
    done = sartor("fuse", model, "-o", model.with_name("f.onnx"), "--only", "Gelu", env=environment)
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 0
    assert lines[0].startswith("sartor fuse: warning: ")
    assert "/proc/none/cache" in lines[0]
    assert len(lines) == 2


def test_home_is_left_alone_in_a_slurm_job(model: Path, tmp_path: Path, sartor: RunSartor) -> None:
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    home.mkdir()
    scratch.mkdir()
    slurm = {"SLURM_JOB_ID": "1", "SLURM_CPUS_PER_TASK": "1", "SLURM_TMPDIR": str(scratch), "HOME": str(home)}
    environment = {
        name: text for name, text in os.environ.items() if name not in ("SARTOR_CACHE_DIR", "XDG_CACHE_HOME")
    }
    done = sartor("fuse", model, "-o", model.with_name("f.onnx"), "--only", "Gelu", env={**environment, **slurm})
    assert done.returncode == 0, done.stderr
    # onnxruntime keeps files of its own below ~/.cache.
    assert list(home.rglob("*sartor*")) == []
    assert [path.name for path in scratch.iterdir()] == [f"sartor-{os.getuid()}"]
    assert history(model.with_name("f.onnx"))[0]["parameters"]["threads"] == 1


def test_heartbeat_while_measuring(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setenv("SARTOR_CACHE_DIR", str(tmp_path / "cold"))
    assert fuse(model, "-o", model.with_name("f.onnx"), "--only", "Gelu") == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert "measuring groups: 0/2, 0 s\n" in err
