"""`sartor fuse --inline`: a plain model again, with the same results and the names that nodes had."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.conftest import RunSartor
from tests.kits.fuse_models import blocks, calls, feed_for, fuse, fused, history, save, stock_outputs


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return the path of the model of blocks."""
    path = tmp_path / "net.onnx"
    onnx.save(blocks(), path)
    return path


def plain(path: Path, *options: str) -> Path:
    """Restore a fused file beside itself, check that it is valid and computes the same, and return its path."""
    target = path.with_suffix(".plain.onnx")
    assert fuse("--inline", path, "-o", target, "-q", *options) == 0
    proto = onnx.load(target)
    onnx.checker.check_model(proto, full_check=True)
    assert [item.domain for item in proto.opset_import if item.domain == "sartor.fuse"] == []
    assert [function.domain for function in proto.functions if function.domain == "sartor.fuse"] == []
    assert calls(target) == []
    for feed in (feed_for(path, batch) for batch in (1, 3)):
        for left, right in zip(stock_outputs(target, feed), stock_outputs(path, feed), strict=True):
            assert (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())
    return target


def test_the_model_comes_back(model: Path) -> None:
    before, after = onnx.load(model), onnx.load(plain(fused(model)))
    assert [(node.op_type, node.name) for node in after.graph.node] == [
        (node.op_type, node.name) for node in before.graph.node
    ]
    assert after.graph.input == before.graph.input
    assert after.graph.output == before.graph.output
    assert after.functions == before.functions
    assert all(not node.metadata_props for node in after.graph.node)
    assert {item.domain: item.version for item in after.opset_import} == {"": 20}


def test_it_can_be_fused_again(model: Path) -> None:
    once = fused(model)
    assert calls(fused(plain(once))) == calls(once)


def test_history(model: Path, sartor: RunSartor) -> None:
    source, target = fused(model), model.with_name("plain.onnx")
    assert sartor("fuse", "--inline", source, "-o", target, "-q").returncode == 0
    first, second = history(target)
    assert (second["tool"], second["previous"]) == ("fuse", first["id"])
    assert second["argv"] == ["fuse", "--inline", source.name, "-o", target.name, "-q"]
    assert (second["parameters"], second["seed"]) == ({"inline": True}, None)
    assert history(plain(source, "--no-history")) == [first]


def test_the_same_bytes_twice(model: Path) -> None:
    source = fused(model)
    assert plain(source).read_bytes() == plain(source).read_bytes()


def test_what_is_said(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, target = fused(model), model.with_name("plain.onnx")
    assert fuse("--inline", source, "-o", target) == 0
    assert capfd.readouterr() == ("", "3 calls of 2 functions inlined\n")
    assert fuse("--inline", target, "-o", target) == 0
    assert capfd.readouterr() == ("", "0 calls of 0 functions inlined\n")


def test_pipes(model: Path, sartor: RunSartor) -> None:
    source = fused(model)
    done = sartor("fuse", "--inline", "--no-history", input=source.read_bytes())
    assert done.returncode == 0, done.stderr
    assert done.stdout == plain(source, "--no-history").read_bytes()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--dry-run"], "--dry-run"),
        (["--json"], "--json"),
        (["--only", "Gelu", "--skip", "Add"], "--only, --skip"),
        (["--no-measure", "--no-verify"], "--no-measure, --no-verify"),
        (["--require-single-kernel", "Gelu"], "--require-single-kernel"),
        (["--emit-library", "lib.so"], "--emit-library"),
        (["--shape", "batch=2", "--report", "r.json"], "--shape, --report"),
        (["--seed", "1", "-@", "1"], "--seed, --threads"),
    ],
)
def test_it_excludes_fusing(options: list[str], named: str, model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    target = model.with_name("plain.onnx")
    assert fuse("--inline", model, "-o", target, *options) == 2
    line = f"sartor fuse: error: --inline excludes {named}. Leave out one or the other\n"
    assert capfd.readouterr() == ("", line)
    assert not target.exists()


def test_names_that_are_not_known_stay_away(model: Path) -> None:
    proto = onnx.load(fused(model))
    first, second, third = (node for node in proto.graph.node if node.domain == "sartor.fuse")
    del first.metadata_props[:]
    second.metadata_props[0].value = json.dumps(["only one"])
    third.metadata_props[0].value = json.dumps(["matmul_c", "softmax_y"])
    path = model.with_name("changed.onnx")
    onnx.save(proto, path)
    names = [node.name for node in onnx.load(plain(path)).graph.node]
    assert names == ["", "", "matmul_c", "", "", "matmul_f", "", "softmax_y"]
    second.metadata_props[0].value = "[broken"
    onnx.save(proto, path)
    assert [node.name for node in onnx.load(plain(path)).graph.node] == names


def test_nodes_without_names_get_none(tmp_path: Path) -> None:
    proto = blocks()
    for node in proto.graph.node:
        node.name = ""
    path = tmp_path / "net.onnx"
    onnx.save(proto, path)
    assert {node.name for node in onnx.load(plain(fused(path))).graph.node} == {""}


BRANCH = """<ir_version: 10, opset_import: ["" : 20]> g (float[n, 8] x) => (float[n, 8] y) {
    a = Exp(x)  v0_0 = Add(a, x)  s = ReduceSum<keepdims = 0>(v0_0)  z = Constant<value = float {0}>()
    yes = Greater(s, z)
    c = If(yes) <
        then_branch = t () => (float[n, 8] p) { q = Exp(v0_0)  v0_0_2 = Add(q, v0_0)  p = Tanh(v0_0_2) },
        else_branch = e () => (float[n, 8] r) { o = Tanh(v0_0)  r = Mul(o, v0_0) }>
    d = Tanh(c)  e = Mul(d, c)  f = Softmax(e)  y = Add(f, d)
}"""


def test_groups_inside_branches(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", BRANCH)
    source = fused(path)
    inner = [
        node.domain
        for outer in onnx.load(source).graph.node
        for attribute in outer.attribute
        if attribute.HasField("g")
        for node in attribute.g.node
    ]
    assert "sartor.fuse" in inner
    target, feed = plain(source), feed_for(path)
    np.testing.assert_array_equal(stock_outputs(target, feed)[0], stock_outputs(path, feed)[0])


def test_functions_of_others_stay(model: Path) -> None:
    proto = onnx.load(fused(model))
    body = onnx.parser.parse_function('<domain: "local", opset_import: ["" : 20]> shift (a) => (b) { b = Neg(a) }')
    proto.functions.append(body)
    proto.opset_import.append(onnx.helper.make_opsetid("local", 1))
    proto.graph.node.append(onnx.helper.make_node("shift", ["y"], ["w"], domain="local"))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("w", 1, ["batch", 8, 32]))
    path = model.with_name("mixed.onnx")
    onnx.save(proto, path)
    after = onnx.load(plain(path))
    assert [function.name for function in after.functions] == ["shift"]


def test_functions_that_nobody_calls_vanish(model: Path) -> None:
    proto = onnx.load(fused(model))
    copy = proto.functions.add()
    copy.CopyFrom(proto.functions[0])
    copy.name = "g_0123456789ab"
    path = model.with_name("more.onnx")
    onnx.save(proto, path)
    assert onnx.load(plain(path)).functions == onnx.load(model).functions
