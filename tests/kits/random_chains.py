"""Random chains of operators over tensors of two to four axes, some of whose sizes are known at run time only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import NodeProto, helper

Array = np.ndarray[Any, Any]
Dim = int | str
SIZES = {"n": (1, 2, 7, 33), "m": (1, 3, 5, 64)}

UNARY = ("Neg", "Abs", "Sigmoid", "Tanh", "Relu", "Floor", "Softplus", "Erf", "Sin")
BINARY = ("Add", "Sub", "Mul", "Max", "Min")
REDUCTIONS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1")


@dataclass
class Chain:
    """A graph under construction: every value with its sizes, inputs first."""

    generator: np.random.Generator
    values: dict[str, list[Dim]] = field(default_factory=dict)
    inputs: dict[str, list[Dim]] = field(default_factory=dict)
    weights: dict[str, Array] = field(default_factory=dict)
    nodes: list[NodeProto] = field(default_factory=list)

    def pick(self, items: Any) -> Any:
        """Choose one of some items."""
        listed = list(items)
        return listed[int(self.generator.integers(len(listed)))]

    def input(self, shape: list[Dim]) -> str:
        """Declare an input."""
        name = f"x{len(self.inputs)}"
        self.inputs[name] = self.values[name] = shape
        return name

    def weight(self, numbers: list[int]) -> str:
        """Declare a constant vector of int64."""
        name = f"c{len(self.weights)}"
        self.weights[name] = np.array(numbers, np.int64)
        return name

    def add(self, operator: str, inputs: list[str], shape: list[Dim], **attributes: Any) -> str:
        """Append a node with one output of a known shape."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        self.values[name] = shape
        return name

    def grow(self) -> None:
        """Append one random node, to the newest values most of the time."""
        names = list(self.values)
        source = names[-1] if self.generator.random() < 0.7 else self.pick(names)
        self.pick((_unary, _binary, _binary, _reduce, _transpose, _reshape, _slice, _concat, _softmax, _where))(
            self, source
        )


def _unary(chain: Chain, x: str) -> None:
    chain.add(chain.pick(UNARY), [x], chain.values[x])


def _binary(chain: Chain, x: str) -> None:
    """Combine with a value of the same shape, or a new input that broadcasts."""
    same = [name for name, shape in chain.values.items() if shape == chain.values[x]]
    shape = chain.values[x]
    if chain.generator.random() < 0.5:
        other = chain.pick(same)
    else:
        cut = int(chain.generator.integers(0, len(shape) + 1))
        kept = [size if chain.generator.random() < 0.7 else 1 for size in shape[cut:]]
        other = chain.input(kept)
    pair = [x, other] if chain.generator.random() < 0.5 else [other, x]
    chain.add(chain.pick(BINARY), pair, shape)


def _where(chain: Chain, x: str) -> None:
    shape = chain.values[x]
    other = chain.pick([name for name, sizes in chain.values.items() if sizes == shape])
    condition = chain.add("Less", [x, other], shape)
    chain.add("Where", [condition, other, x], shape)
    del chain.values[condition]


def _reduce(chain: Chain, x: str) -> None:
    shape = chain.values[x]
    if not shape:
        return
    count = int(chain.generator.integers(1, len(shape) + 1)) if chain.generator.random() < 0.3 else 1
    axes = sorted(int(axis) for axis in chain.generator.choice(len(shape), count, replace=False))
    keep = int(chain.generator.random() < 0.7)
    left = [1 if i in axes else size for i, size in enumerate(shape) if keep or i not in axes]
    name = chain.add(chain.pick(REDUCTIONS), [x, chain.weight(axes)], left, keepdims=keep)
    if keep and chain.generator.random() < 0.7:
        chain.add(chain.pick(BINARY), [x, name], shape)


def _softmax(chain: Chain, x: str) -> None:
    if chain.values[x]:
        chain.add("Softmax", [x], chain.values[x], axis=int(chain.generator.integers(len(chain.values[x]))))


def _transpose(chain: Chain, x: str) -> None:
    order = [int(axis) for axis in chain.generator.permutation(len(chain.values[x]))]
    if order:
        chain.add("Transpose", [x], [chain.values[x][axis] for axis in order], perm=order)


def _reshape(chain: Chain, x: str) -> None:
    """Join two neighbouring fixed axes, split one, or insert one of size 1."""
    shape = chain.values[x]
    target: list[Dim] = list(shape)
    joinable = [i for i in range(len(shape) - 1) if isinstance(shape[i], int) and isinstance(shape[i + 1], int)]
    even = [i for i, size in enumerate(shape) if isinstance(size, int) and size % 2 == 0]
    if joinable and chain.generator.random() < 0.5:
        i = chain.pick(joinable)
        target[i : i + 2] = [int(shape[i]) * int(shape[i + 1])]
    elif even:
        i = chain.pick(even)
        target[i : i + 1] = [2, int(shape[i]) // 2]
    else:
        target.insert(int(chain.generator.integers(len(shape) + 1)), 1)
    if len(target) > 5 or sum(isinstance(size, str) for size in target) > 1:
        return
    chain.add("Reshape", [x, chain.weight([size if isinstance(size, int) else -1 for size in target])], target)


def _slice(chain: Chain, x: str) -> None:
    shape = chain.values[x]
    fixed = [i for i, size in enumerate(shape) if isinstance(size, int) and size > 1]
    if not fixed:
        return
    axis = chain.pick(fixed)
    size = int(shape[axis])
    step = chain.pick((1, 1, 2, -1))
    start, end = sorted(int(i) for i in chain.generator.choice(size + 1, 2, replace=False))
    bounds = (start, end) if step > 0 else (end - 1, start - 1 if start else -size - 1)
    vectors = [chain.weight([number]) for number in (*bounds, axis, step)]
    count = len(range(start, end, abs(step)))
    chain.add("Slice", [x, *vectors], [*shape[:axis], count, *shape[axis + 1 :]])


def _concat(chain: Chain, x: str) -> None:
    shape = chain.values[x]
    fixed = [i for i, size in enumerate(shape) if isinstance(size, int)]
    if not fixed:
        return
    axis = chain.pick(fixed)
    others = [
        name
        for name, sizes in chain.values.items()
        if len(sizes) == len(shape) and isinstance(sizes[axis], int) and _but(sizes, axis) == _but(shape, axis)
    ]
    parts = [x, *(chain.pick(others) for _ in range(int(chain.generator.integers(1, 3))))]
    total = sum(int(chain.values[name][axis]) for name in parts)
    if total < 200:
        chain.add("Concat", parts, [*shape[:axis], total, *shape[axis + 1 :]], axis=axis)


def _but(shape: list[Dim], axis: int) -> list[Dim]:
    return [*shape[:axis], *shape[axis + 1 :]]


def random_chain(seed: int, length: int = 6) -> tuple[Chain, list[str]]:
    """Make a chain of some nodes; return it with its outputs, which are all values that no node reads."""
    generator = np.random.default_rng(seed)
    chain = Chain(generator)
    rank = int(generator.integers(2, 5))
    chain.input([chain.pick((1, 2, 4, 6, 9, 17, "n", "m")) for _ in range(rank)])
    while len(chain.nodes) < length:
        chain.grow()
    read = {name for node in chain.nodes for name in node.input}
    made = [name for node in chain.nodes for name in node.output]
    outputs = [name for name in made if name not in read]
    extra = [name for name in made if name in read and name in chain.values and generator.random() < 0.15]
    return chain, [*outputs, *extra]


def draw(chain: Chain, sizes: dict[str, int], seed: int) -> dict[str, Array]:
    """Draw the inputs of a chain."""
    generator = np.random.default_rng(seed)
    return {
        name: generator.uniform(-2, 2, [size if isinstance(size, int) else sizes[size] for size in shape]).astype(
            np.float32
        )
        for name, shape in chain.inputs.items()
    }
