"""Write small models with seeded weights, `encoder.onnx`, `cnn.onnx` and `recurrent.onnx`, and samples for two."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 18, 10
VOCABULARY, LONGEST, HIDDEN, HEADS, LAYERS = 128, 512, 64, 4, 2
CHANNELS, EXPANDED, SQUEEZED, CLASSES, PIXELS = 16, 32, 8, 10, 32
FEATURES, UNITS, STEPS = 32, 128, 16
SAMPLES = {"train": 128, "val": 128, "test": 64}


class Builder:
    """Collects the nodes and weights of one graph; each method returns the name of a tensor."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(seed)

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator with one output."""
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def weight(self, values: NDArray[np.generic]) -> str:
        """Add a constant tensor."""
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def normal(self, shape: Sequence[int], scale: float, mean: float = 0.0) -> str:
        """Add a constant float32 tensor of normally distributed values."""
        return self.weight(self.random.normal(mean, scale, shape).astype(np.float32))

    def scalar(self, value: float) -> str:
        """Add a constant float32 scalar."""
        return self.weight(np.array(value, np.float32))

    def integers(self, *values: int) -> str:
        """Add a constant int64 vector."""
        return self.weight(np.array(values, np.int64))

    def model(self, name: str, source: onnx.ValueInfoProto, target: onnx.ValueInfoProto) -> onnx.ModelProto:
        """Return the checked model."""
        graph = helper.make_graph(self.nodes, name, [source], [target], self.weights)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="sartor-examples")
        onnx.checker.check_model(model, full_check=True)
        return model


def encoder() -> onnx.ModelProto:
    """Return a transformer encoder from token ids (batch, sequence) to hidden states (batch, sequence, 64)."""
    build = Builder(seed=1)
    length = build.node("Shape", "ids", start=1, end=2)
    positions = build.node("Slice", build.normal((LONGEST, HIDDEN), 0.1), build.integers(0), length, build.integers(0))
    tokens = build.node("Gather", build.normal((VOCABULARY, HIDDEN), 0.5), "ids")
    hidden = layer_norm(build, build.node("Add", tokens, positions))
    for _ in range(LAYERS):
        hidden = layer_norm(build, build.node("Add", attention(build, hidden), hidden))
        hidden = layer_norm(build, build.node("Add", feed_forward(build, hidden), hidden))
    build.nodes.append(helper.make_node("Identity", [hidden], ["hidden"], name="hidden"))
    source = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])
    target = helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["batch", "sequence", HIDDEN])
    return build.model("encoder", source, target)


def attention(build: Builder, hidden: str) -> str:
    """Add self-attention with a softmax over the keys."""
    query = split_heads(build, linear(build, hidden, HIDDEN, HIDDEN), (0, 2, 1, 3))
    key = split_heads(build, linear(build, hidden, HIDDEN, HIDDEN), (0, 2, 3, 1))
    value = split_heads(build, linear(build, hidden, HIDDEN, HIDDEN), (0, 2, 1, 3))
    scores = build.node("Div", build.node("MatMul", query, key), build.scalar(math.sqrt(HIDDEN / HEADS)))
    mixed = build.node("MatMul", build.node("Softmax", scores, axis=-1), value)
    joined = build.node("Reshape", build.node("Transpose", mixed, perm=(0, 2, 1, 3)), build.integers(0, 0, HIDDEN))
    return linear(build, joined, HIDDEN, HIDDEN)


def split_heads(build: Builder, hidden: str, order: Sequence[int]) -> str:
    """Add the reshape to (batch, sequence, heads, size) and its transpose."""
    heads = build.node("Reshape", hidden, build.integers(0, 0, HEADS, HIDDEN // HEADS))
    return build.node("Transpose", heads, perm=order)


def feed_forward(build: Builder, hidden: str) -> str:
    """Add two linear layers with a GELU written with Erf between them."""
    wide = linear(build, hidden, HIDDEN, 4 * HIDDEN)
    error = build.node("Erf", build.node("Div", wide, build.scalar(math.sqrt(2))))
    gated = build.node("Mul", wide, build.node("Add", error, build.scalar(1)))
    return linear(build, build.node("Mul", gated, build.scalar(0.5)), 4 * HIDDEN, HIDDEN)


def linear(build: Builder, hidden: str, inputs: int, outputs: int) -> str:
    """Add a matrix product and a bias."""
    product = build.node("MatMul", hidden, build.normal((inputs, outputs), 1 / math.sqrt(inputs)))
    return build.node("Add", product, build.normal((outputs,), 0.1))


def layer_norm(build: Builder, hidden: str) -> str:
    """Add a layer normalisation of the last axis."""
    scale, bias = build.normal((HIDDEN,), 0.1, mean=1.0), build.normal((HIDDEN,), 0.1)
    return build.node("LayerNormalization", hidden, scale, bias, axis=-1, epsilon=1e-5)


def cnn() -> onnx.ModelProto:
    """Return a convolutional classifier from images (batch, 3, 32, 32) to probabilities (batch, 10)."""
    build = Builder(seed=2)
    features = build.node("Relu", convolution(build, "image", 3, CHANNELS, size=3))
    features = residual_block(build, features)
    features = inverted_block(build, features)
    pooled = build.node("Flatten", build.node("GlobalAveragePool", features), axis=1)
    logits = build.node("Gemm", pooled, build.normal((CHANNELS, CLASSES), 0.5), build.normal((CLASSES,), 0.1))
    build.nodes.append(helper.make_node("Softmax", [logits], ["probabilities"], name="probabilities", axis=-1))
    source = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, PIXELS, PIXELS])
    target = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", CLASSES])
    return build.model("cnn", source, target)


def residual_block(build: Builder, features: str) -> str:
    """Add two convolutions around a shortcut (ResNet)."""
    inner = build.node("Relu", convolution(build, features, CHANNELS, CHANNELS, size=3))
    outer = convolution(build, inner, CHANNELS, CHANNELS, size=3)
    return build.node("Relu", build.node("Add", outer, features))


def inverted_block(build: Builder, features: str) -> str:
    """Add expansion, depthwise convolution, squeeze-and-excitation and projection (MobileNet)."""
    wide = build.node("Relu", convolution(build, features, CHANNELS, EXPANDED, size=1))
    deep = build.node("Relu", convolution(build, wide, EXPANDED, EXPANDED, size=3, groups=EXPANDED))
    excited = build.node("Mul", deep, squeeze(build, deep))
    return build.node("Add", convolution(build, excited, EXPANDED, CHANNELS, size=1), features)


def squeeze(build: Builder, features: str) -> str:
    """Add the gate of squeeze-and-excitation, one factor a channel."""
    mean = build.node("GlobalAveragePool", features)
    narrow = build.node("Relu", build.node("Conv", mean, build.normal((SQUEEZED, EXPANDED, 1, 1), 0.3)))
    return build.node("Sigmoid", build.node("Conv", narrow, build.normal((EXPANDED, SQUEEZED, 1, 1), 0.5)))


def convolution(build: Builder, features: str, inputs: int, outputs: int, *, size: int, groups: int = 1) -> str:
    """Add a convolution of the same size and a batch normalisation."""
    fan_in = inputs // groups * size * size
    kernel = build.normal((outputs, inputs // groups, size, size), math.sqrt(2 / fan_in))
    borders = [size // 2] * 4
    convolved = build.node("Conv", features, kernel, pads=borders, group=groups, kernel_shape=[size, size])
    scale, bias, mean = (build.normal((outputs,), 0.1, mean=center) for center in (1.0, 0.0, 0.0))
    variance = build.weight(build.random.uniform(0.5, 1.5, outputs).astype(np.float32))
    return build.node("BatchNormalization", convolved, scale, bias, mean, variance)


def recurrent() -> onnx.ModelProto:
    """Return an LSTM and a GRU from features (time, batch, 32) to logits (batch, 10)."""
    build = Builder(seed=4)
    sequence = build.node("Squeeze", layer(build, "LSTM", "features", FEATURES, gates=4), build.integers(1))
    last = build.node("Squeeze", layer(build, "GRU", sequence, UNITS, gates=3, last=True), build.integers(0))
    logits = build.node("Gemm", last, build.normal((UNITS, CLASSES), 0.3), build.normal((CLASSES,), 0.1))
    build.nodes.append(helper.make_node("Identity", [logits], ["logits"], name="logits"))
    source = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["time", "batch", FEATURES])
    target = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])
    return build.model("recurrent", source, target)


def layer(build: Builder, kind: str, sequence: str, inputs: int, *, gates: int, last: bool = False) -> str:
    """Add a recurrent layer that forgets slowly; return its outputs over time, or its last state."""
    scale = 1 / math.sqrt(UNITS)
    weights = [build.normal((1, gates * UNITS, columns), scale) for columns in (inputs, UNITS)]
    name = f"{kind.lower()}_{len(build.nodes)}"
    outputs = ["", name] if last else [name]
    inner = [sequence, *weights, build.normal((1, 2 * gates * UNITS), 0.1, mean=0.2)]
    build.nodes.append(helper.make_node(kind, inner, outputs, name=name, hidden_size=UNITS))
    return name


def write_images(path: Path) -> None:
    """Write samples for `cnn.onnx`: smooth patterns as bytes with the channels last, as cameras give them."""
    random = np.random.default_rng(3)
    place = np.linspace(0, 1, PIXELS)
    with h5py.File(path, "w") as file:
        for split, count in SAMPLES.items():
            waves = random.uniform(-8, 8, (2, count, 1, 1, 3))
            phase = waves[0] * place[:, None, None] + waves[1] * place[:, None] + random.uniform(0, 6, (count, 1, 1, 3))
            file[f"{split}/x"] = np.rint(127.5 + 127.5 * np.sin(phase)).astype(np.uint8)
            file[f"{split}/x"].attrs.update(layout="NHWC", scale=1 / 255, mean=[0.5] * 3, std=[0.35] * 3)


def write_sequences(path: Path) -> None:
    """Write samples for `recurrent.onnx`, the samples first: sums of slow waves, as sensors give them."""
    random = np.random.default_rng(5)
    time = np.arange(STEPS)[:, None]
    with h5py.File(path, "w") as file:
        for split, count in SAMPLES.items():
            pace, phase = random.uniform(0.1, 0.9, (count, 1, FEATURES)), random.uniform(0, 6, (count, 1, FEATURES))
            file[f"{split}/x"] = np.sin(pace * time + phase).astype(np.float32)


def main() -> None:
    """Write models and data into the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path())
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(encoder(), folder / "encoder.onnx")
    onnx.save(cnn(), folder / "cnn.onnx")
    onnx.save(recurrent(), folder / "recurrent.onnx")
    write_images(folder / "images.h5")
    write_sequences(folder / "sequences.h5")


if __name__ == "__main__":
    main()
