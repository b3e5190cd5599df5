"""What must hold whichever channels are removed from a model: checks for networks, and random networks to check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from sartor.tools.prune.allocate import cost_of
from sartor.tools.prune.channels import Channels
from sartor.tools.prune.compact import compact, kept_of
from sartor.tools.prune.factors import find_channels
from sartor.tools.prune.sizes import infer_all_shapes
from sartor.tools.prune.units import Resources, Unit, find_units, resources
from sartor.tools.prune.unshare import unshare
from sartor.tools.prune.verify import masked

Feed = dict[str, np.ndarray]
CLOSE = 1e-5


class Network:
    """A model with its channels found."""

    def __init__(self, model: ir.Model, keep: Sequence[str] = (), samples: Feed | None = None) -> None:
        unshare(model.graph)
        infer_all_shapes(model, samples or {})
        self.model = model
        self.found: Channels = find_channels(model.graph, model.opset_imports[""])
        self.units: tuple[Unit, ...] = find_units(self.found, keep)
        self.resources: Resources = resources(self.found, self.units)

    @property
    def full(self) -> list[int]:
        """The classes of every unit."""
        return [len(unit.classes) for unit in self.units]

    def removed(self, counts: Sequence[int], seed: int) -> np.ndarray:
        """Choose the classes that go where so many of each unit stay."""
        rng = np.random.default_rng(seed)
        gone = [rng.permutation(unit.classes)[count:] for unit, count in zip(self.units, counts, strict=True)]
        return np.concatenate(gone) if gone else np.zeros(0, np.int64)


def read(proto: onnx.ModelProto | bytes) -> ir.Model:
    """Return a model from its proto or its bytes."""
    made = proto if isinstance(proto, onnx.ModelProto) else onnx.load_from_string(proto)
    return ir.serde.deserialize_model(made)


def run(model: ir.Model, feed: Feed) -> list[np.ndarray]:
    """Run a model in stock onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(serialized(model), options, providers=["CPUExecutionProvider"])
    return [np.asarray(array) for array in session.run(None, feed)]


def serialized(model: ir.Model) -> bytes:
    """Return the bytes of a model."""
    return bytes(ir.serde.serialize_model(model).SerializeToString())


def random_feed(model: ir.Model, seed: int = 0) -> Feed:
    """Make inputs, two samples where the first axis has a name only."""
    rng = np.random.default_rng(seed)
    feed: Feed = {}
    for value in model.graph.inputs:
        assert value.shape is not None
        assert value.dtype is not None
        sizes = [size if isinstance(size, int) else 2 for size in value.shape]
        kind = value.dtype.numpy()
        feed[str(value.name)] = (
            rng.standard_normal(sizes).astype(kind) if kind.kind == "f" else rng.integers(0, 8, sizes).astype(kind)
        )
    return feed


def check(network: Network, counts: Sequence[int], seed: int, feed: Feed) -> ir.Model:
    """Check the model in which so many classes of every unit stay, and return it."""
    removed = network.removed(counts, seed)
    small = compact(network.model, network.found, removed)
    infer_all_shapes(small, feed)
    onnx.checker.check_model(onnx.load_from_string(serialized(small)), full_check=True)
    expected = run(masked(network.model, network.found, kept_of(network.found, removed)), feed)
    for mine, theirs in zip(run(small, feed), expected, strict=True):
        scale = max(float(np.abs(theirs).max()), 1.0)
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=CLOSE * scale)
    for nodes, counted in ((network.resources.parameters, parameters), (network.resources.macs, multiplications)):
        assert cost_of(nodes, len(network.units)).total(np.array(counts, np.int64)) == counted(small)
    return small


def parameters(model: ir.Model) -> int:
    """Count the elements of floating-point initialisers."""
    contents = [value.const_value for value in model.graph.initializers.values()]
    return sum(one.size for one in contents if one is not None and one.dtype.is_floating_point())


def multiplications(model: ir.Model) -> int:
    """Count the multiplications of convolutions and matrix products from the shapes that ONNX's own inference finds.

    Where it finds none, the model's own count. Axes without a size count as 1.
    """
    proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(serialized(model)), strict_mode=True)
    shapes: dict[str, list[int]] = {one.name: list(one.dims) for one in proto.graph.initializer}
    for out in (out for node in model.graph for out in node.outputs if out.shape is not None):
        shapes[str(out.name)] = [size if isinstance(size, int) else 1 for size in out.shape or ()]
    for value in (*proto.graph.input, *proto.graph.value_info, *proto.graph.output):
        shapes[value.name] = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
    return sum(_multiplications(node, shapes) for node in proto.graph.node)


def _multiplications(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int:
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    if node.op_type == "Conv":
        return int(np.prod(shapes[node.output[0]][1:]) * np.prod(shapes[node.input[1]][1:]))
    if node.op_type == "ConvTranspose":
        return int(np.prod(shapes[node.input[0]][1:]) * np.prod(shapes[node.input[1]][1:]))
    if node.op_type == "Gemm":
        return int(np.prod(shapes[node.output[0]]) * shapes[node.input[1]][1 if attributes.get("transB") else 0])
    if node.op_type == "MatMul":
        return int(np.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1])
    return 0


class Builder:
    """Grows a random network whose tensors are (batch, channels, 8, 8)."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.channels: dict[str, int] = {"x": 3}

    def weight(self, *shape: int) -> str:
        """Make a weight whose products keep the scale of the data."""
        name = f"w{len(self.weights)}"
        content = self.rng.standard_normal(shape) / max(np.prod(shape[1:]), 1) ** 0.5
        self.weights[name] = content.astype(np.float32)
        return name

    def add(self, operator: str, inputs: Sequence[str], channels: int | Sequence[int], **attributes: Any) -> str:
        """Add a node, and return its first output."""
        many = [channels] if isinstance(channels, int) else list(channels)
        names = [f"t{len(self.nodes)}_{i}" for i in range(len(many))]
        self.nodes.append(helper.make_node(operator, list(inputs), names, name=f"n{len(self.nodes)}", **attributes))
        self.channels.update(zip(names, many, strict=True))
        return names[0]

    def conv(self, x: str, channels: int, groups: int = 1, kernel: int = 3) -> str:
        """Add a convolution that keeps the positions."""
        shape = (channels, self.channels[x] // groups, kernel, kernel)
        inputs = [x, self.weight(*shape), *([self.weight(channels)] if self.rng.random() < 0.7 else [])]
        return self.add("Conv", inputs, channels, group=groups, pads=[kernel // 2] * 4)

    def grow(self) -> None:
        """Add one of many constructions to some tensor."""
        x = str(self.rng.choice(list(self.channels)[-4:]))
        width = self.channels[x]
        steps = [self._wide, self._depthwise, self._grouped, self._activate, self._normalise, self._residual,
                 self._joined, self._divided, self._sliced, self._excited, self._shuffled, self._picked]  # fmt: skip
        step = steps[int(self.rng.integers(len(steps)))]
        step(x, width)

    def _wide(self, x: str, width: int) -> None:
        self.conv(x, int(self.rng.choice([4, 6, 8, 12])), kernel=int(self.rng.choice([1, 3])))

    def _depthwise(self, x: str, width: int) -> None:
        if width > 1:
            self.conv(x, width * int(self.rng.integers(1, 3)), groups=width)

    def _grouped(self, x: str, width: int) -> None:
        if width % 2 == 0 and width > 2:
            self.conv(x, int(self.rng.choice([4, 8])), groups=2)

    def _activate(self, x: str, width: int) -> None:
        if self.rng.random() < 0.3:
            self.add("PRelu", [x, self.weight(width, 1, 1)], width)
        else:
            self.add(str(self.rng.choice(["Relu", "Sigmoid", "Tanh"])), [x], width)

    def _normalise(self, x: str, width: int) -> None:
        spread = self.weight(width)
        self.weights[spread] = np.abs(self.weights[spread]) + 0.5
        self.add("BatchNormalization", [x, self.weight(width), self.weight(width), self.weight(width), spread], width)

    def _residual(self, x: str, width: int) -> None:
        other = self.conv(self.add("Relu", [self.conv(x, width)], width), width)
        self.add("Add", [x, other], width)

    def _joined(self, x: str, width: int) -> None:
        other = str(self.rng.choice(list(self.channels)))
        self.add("Concat", [x, other], width + self.channels[other], axis=1)

    def _divided(self, x: str, width: int) -> None:
        if width > 1:
            first = int(self.rng.integers(1, width))
            sizes = numpy_helper.from_array(np.array([first, width - first], np.int64), f"s{len(self.nodes)}")
            self.weights[sizes.name] = numpy_helper.to_array(sizes)
            self.add("Split", [x, sizes.name], [first, width - first], axis=1)

    def _sliced(self, x: str, width: int) -> None:
        if width > 2:
            names = [f"c{len(self.nodes)}_{i}" for i in range(3)]
            begin = int(self.rng.integers(0, width - 1))
            end = int(self.rng.integers(begin + 1, width + 1))
            self.weights |= {n: np.array([v], np.int64) for n, v in zip(names, (begin, end, 1), strict=True)}
            self.add("Slice", [x, *names], end - begin)

    def _excited(self, x: str, width: int) -> None:
        pooled = self.add("GlobalAveragePool", [x], width)
        del self.channels[pooled]
        inner = [self.weight(4, width, 1, 1), self.weight(width, 4, 1, 1)]
        small = self.add("Conv", [pooled, inner[0]], 4)
        gate = self.add("Sigmoid", [self.add("Conv", [small, inner[1]], width)], width)
        for name in (small, gate, self.nodes[-2].output[0]):
            self.channels.pop(name, None)
        self.add("Mul", [x, gate], width)

    def _shuffled(self, x: str, width: int) -> None:
        if width % 2:
            return
        shapes = {f"r{len(self.nodes)}": [0, 2, width // 2, 8, 8], f"q{len(self.nodes)}": [0, width, 8, 8]}
        self.weights |= {name: np.array(shape, np.int64) for name, shape in shapes.items()}
        first, last = shapes
        split = self.add("Reshape", [x, first], width)
        turned = self.add("Transpose", [split], width, perm=[0, 2, 1, 3, 4])
        self.add("Reshape", [turned, last], width)
        del self.channels[split], self.channels[turned]

    def _picked(self, x: str, width: int) -> None:
        name = f"i{len(self.nodes)}"
        self.weights[name] = self.rng.permutation(width)[: max(width - 1, 1)].astype(np.int64)
        self.add("Gather", [x, name], max(width - 1, 1), axis=1)

    def finish(self) -> onnx.ModelProto:
        """Add a classifier behind the last tensor, and return the model."""
        x = list(self.channels)[-1]
        pooled = self.add("GlobalAveragePool", [x], self.channels[x])
        flat = self.add("Flatten", [pooled], self.channels[x])
        weights = [self.weight(5, self.channels[x]), self.weight(5)]
        y = self.add("Gemm", [flat, *weights], 5, transB=1)
        graph = helper.make_graph(
            self.nodes,
            "random",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
            [helper.make_tensor_value_info(y, TensorProto.FLOAT, ["batch", 5])],
            [numpy_helper.from_array(array, name) for name, array in self.weights.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def random_network(seed: int, steps: int) -> onnx.ModelProto:
    """Make a network of random constructions."""
    builder = Builder(seed)
    builder.conv("x", 8)
    for _ in range(steps):
        builder.grow()
    return builder.finish()
