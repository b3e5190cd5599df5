"""A small model to fuse, and what the tests of `sartor fuse` ask about models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper

import sartor
from sartor.cli.main import run
from sartor.share.runtime import kernels_of

BLOCKS = """
<ir_version: 8, opset_import: ["" : 20]>
blocks (float[batch, 8, 32] x) => (float[batch, 8, 32] y)
<float[32] bias, float[32, 32] weight, float[32] scale>
{
    a = Add(x, bias)  b = Gelu(a)  c = MatMul(b, weight)
    d = Add(c, bias)  e = Gelu(d)  f = MatMul(e, weight)
    g = LayerNormalization<axis = -1>(f, scale, bias)  y = Softmax<axis = -1>(g)
}
"""
"""Two equal groups (Add, Gelu) and a third (LayerNormalization, Softmax) between matrix products."""


def blocks(width: int = 32) -> onnx.ModelProto:
    """Return the model of blocks with seeded weights and named nodes."""
    model = onnx.parser.parse_model(BLOCKS.replace("32", str(width)))
    generator = np.random.default_rng(3)
    del model.graph.initializer[:]
    for name, shape in {"bias": (width,), "weight": (width, width), "scale": (width,)}.items():
        values = generator.normal(0, 0.3, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    for node in model.graph.node:
        node.name = f"{node.op_type.lower()}_{node.output[0]}"
    onnx.checker.check_model(model, full_check=True)
    return model


def save(path: Path, text: str) -> Path:
    """Write the model that a text in ONNX's own notation describes."""
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def fuse(*arguments: str | Path) -> int:
    """Run `sartor fuse` in this process and return the exit code."""
    return run(["fuse", *map(str, arguments)])


def fused(model: Path, *options: str) -> Path:
    """Fuse a model beside itself without measuring and return the path."""
    target = model.with_suffix(".fused.onnx")
    assert fuse(model, "-o", target, "--no-measure", "-q", *options) == 0
    return target


def plan_of(capfd: pytest.CaptureFixture[str], model: Path, *options: str) -> Any:
    """Return the JSON document of a dry run."""
    capfd.readouterr()
    assert fuse(model, "--dry-run", "--json", *options) == 0
    return json.loads(capfd.readouterr().out)


def calls(path: Path) -> list[str]:
    """List the operators of a model's main graph that are functions of ours."""
    return [node.op_type for node in onnx.load(path).graph.node if node.domain == "sartor.fuse"]


def history(path: Path) -> list[dict[str, Any]]:
    """Return the history records of a model."""
    text = ir.load(path).metadata_props.get("sartor.history")
    return [] if text is None else list(json.loads(text))


def feed_for(model: Path, batch: int = 3) -> dict[str, Any]:
    """Draw float inputs; every named axis has the size `batch`."""
    generator = np.random.default_rng(5)
    inputs = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).get_inputs()
    shapes = {item.name: [size if isinstance(size, int) else batch for size in item.shape] for item in inputs}
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def stock_outputs(model: Path, feed: dict[str, Any]) -> list[Any]:
    """Run a model in stock onnxruntime."""
    return list(onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feed))


def assert_same_results(target: Path, source: Path, kernels: int | None) -> None:
    """Check a fused file: valid, the same in stock onnxruntime, and in sartor.load by this number of kernels."""
    onnx.checker.check_model(onnx.load(target), full_check=True)
    feed = feed_for(source)
    expected = stock_outputs(source, feed)
    for left, right in zip(stock_outputs(target, feed), expected, strict=True):
        np.testing.assert_array_equal(left, right)
    session = sartor.load(target)
    assert kernels is None or len(kernels_of(session)) == kernels
    for left, right in zip(session.run(None, feed), expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)
