"""What a network takes in onnxruntime as a function of counts: its layers timed alone at some counts, and fitted.

A layer's time is a sum of products of its channel axes, `a + b in + c out + d in out` for most, with coefficients of
nonnegative least squares on relative errors. All else takes what is missing to the time of the whole network, shared
out by the sizes of outputs. So latency is a cost like multiplications, for which every wall and step is known.

Layers alone run neither fused with what follows nor in the layout of their neighbours. What that makes wrong is put
right by timing the whole network at an allocation (`corrected`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from scipy.optimize import nnls

from sartor.share.shapes import infer_shapes
from sartor.share.timing import race
from sartor.tools.prune.compact import compact
from sartor.tools.prune.evaluate import Runner
from sartor.tools.prune.kernels.resources import AxisCount, NodeCost
from sartor.tools.prune.network import Network
from sartor.tools.prune.problem import Counts, Floats
from sartor.tools.prune.units import axis_counter

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Shares of the classes of units at which layers are timed."""

POINTS = 8
"""Vectors of counts, the full one among them, that give the points of the fits."""

SECONDS, LEAST_RUNS = 0.01, 5
"""Time of one point, and runs that it has at least."""

WHOLE_SECONDS = 1.0
"""Time of a comparison of whole networks."""

CORRECTIONS, CLOSE = 6, 0.04
"""Times that a budget is corrected at most, and how near to what was asked for is near enough."""

Feed = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class _Point:
    """A node as it is at some counts: what it computes, and the shapes of its inputs."""

    node: ir.Node
    shapes: tuple[tuple[int, ...], ...]

    @property
    def key(self) -> tuple[object, ...]:
        """What tells points apart that take different times."""
        attributes = sorted((name, str(one.value)) for name, one in self.node.attributes.items())
        return (self.node.op_type, tuple(attributes), self.shapes)


def latency_nodes(network: Network, feed: Feed, seed: int) -> tuple[NodeCost, ...]:
    """Time the layers of a network and return its latency for one sample, in microseconds, as a sum of products."""
    vectors = _vectors(network, seed)
    times: dict[tuple[object, ...], float] = {}
    rows: dict[ir.Node, list[float]] = {}
    for counts in vectors:
        for original, point in _points(network, counts, feed):
            if point.key not in times:
                times[point.key] = _time_alone(point)
            rows.setdefault(original, []).append(times[point.key])
    fitted = [node for original, found in rows.items() for node in _fit(network, original, vectors, np.array(found))]
    return tuple(_completed(network, fitted, feed))


def _vectors(network: Network, seed: int) -> list[Counts]:
    """Return counts of all units: all of them, then random shares."""
    rng = np.random.default_rng(seed)
    full = np.array([len(unit.classes) for unit in network.units])
    shares = [np.ones(len(full)), *(rng.choice(SHARES, len(full)) for _ in range(POINTS - 1))]
    return [np.maximum(np.rint(share * full), 1).astype(np.int64) for share in shares]


def _points(network: Network, counts: Counts, feed: Feed) -> Iterator[tuple[ir.Node, _Point]]:
    """Yield the nodes that multiply, as they are at counts, with those of the whole network."""
    small = compact(network.model, network.found, network.removed(counts))
    for value in small.graph.inputs:
        if str(value.name) in feed:
            value.shape = ir.Shape([1, *feed[str(value.name)].shape[1:]])
    infer_shapes(small)
    wanted = {term.node for term in network.found.terms}
    for original, node in zip(network.model.graph, small.graph, strict=True):
        shapes = [_sizes(value) for value in node.inputs]
        if original in wanted and None not in shapes:
            yield original, _Point(node, tuple(shape for shape in shapes if shape is not None))


def _sizes(value: ir.Value | None) -> tuple[int, ...] | None:
    if value is None or value.shape is None or value.dtype is not ir.DataType.FLOAT:
        return None
    return tuple(size if isinstance(size, int) else 1 for size in value.shape)


def _time_alone(point: _Point) -> float:
    """Time a model of one node; microseconds, the least of several runs."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in point.shapes]
    values = []
    for i, (value, array) in enumerate(zip(point.node.inputs, arrays, strict=True)):
        constant = value is not None and (value.is_initializer() or value.const_value is not None)
        made = ir.Value(name=f"i{i}", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(array.shape))
        made.const_value = ir.Tensor(array, name=made.name) if constant else None
        values.append(made)
    output = ir.Value(name="o", type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.Node("", point.node.op_type, values, list(point.node.attributes.values()), outputs=[output])
    graph = ir.Graph(
        [value for value in values if value.const_value is None], [output], nodes=[node],
        initializers=[value for value in values if value.const_value is not None], name="alone",
        opset_imports=point.node.graph.opset_imports if point.node.graph is not None else {"": 20},
    )  # fmt: skip
    runner = Runner(ir.Model(graph, ir_version=10))
    inputs = {f"i{i}": array for i, array in enumerate(arrays) if values[i].const_value is None}
    return _least(lambda: next(iter(runner.batches(inputs, len(arrays[0])))))


def _least(call: Callable[[], object]) -> float:
    call()
    taken: list[int] = []
    while len(taken) < LEAST_RUNS or sum(taken) < SECONDS * 1e9:
        started = perf_counter_ns()
        call()
        taken.append(perf_counter_ns() - started)
    return min(taken) / 1e3


def _fit(network: Network, node: ir.Node, vectors: Sequence[Counts], times: Floats) -> Iterator[NodeCost]:
    """Yield the products of a layer's axes whose sum is nearest to its times."""
    (term,) = (one for one in network.found.terms if one.node is node)
    axes = dict.fromkeys(axis for axis in map(axis_counter(network.found, network.units), term.factors) if axis.terms)
    products = [(), *((axis,) for axis in axes), *([tuple(axes)] if len(axes) > 1 else [])]
    rows = np.array([[math.prod(_at(axis, counts) for axis in one) for one in products] for counts in vectors])
    found, _ = nnls(rows / times[:, None], np.ones(len(times)))
    yield from (NodeCost(float(number), one) for number, one in zip(found, products, strict=True) if number > 0)


def _at(axis: AxisCount, counts: Counts) -> float:
    return float(axis.const + sum(times * int(counts[unit]) for unit, times in axis.terms))


def _completed(network: Network, fitted: Sequence[NodeCost], feed: Feed) -> list[NodeCost]:
    """Add what nodes other than layers take, or scale the layers down, so that the whole network takes its time."""
    runner = Runner(network.model)
    one = {name: array[:1] for name, array in feed.items()}
    whole = _least(lambda: runner.outputs(one))
    full = np.array([len(unit.classes) for unit in network.units])
    layers = sum(_total(node, full) for node in fitted)
    rest = list(_others(network))
    elements = sum(_total(node, full) for node in rest)
    if layers >= whole or not elements:
        return [NodeCost(node.coefficient * whole / max(layers, 1e-9), node.axes) for node in fitted]
    rate = (whole - layers) / elements
    return [*fitted, *(NodeCost(node.coefficient * rate, node.axes) for node in rest)]


def _total(node: NodeCost, counts: Counts) -> float:
    return node.coefficient * math.prod(_at(axis, counts) for axis in node.axes)


def _others(network: Network) -> Iterator[NodeCost]:
    """Yield the elements of the outputs of nodes that do not multiply."""
    layers, count = {term.node for term in network.found.terms}, axis_counter(network.found, network.units)
    for node in network.model.graph:
        for value in node.outputs if node not in layers else ():
            if value.shape is None or value.dtype is not ir.DataType.FLOAT or value.const_value is not None:
                continue
            axes = network.found.axes.get(value, (None,) * len(value.shape))
            along = [count(labels) for labels in axes if labels is not None]
            sizes = [n for n, labels in zip(value.shape, axes, strict=True) if labels is None and isinstance(n, int)]
            yield NodeCost(float(math.prod(sizes)), tuple(along))


def corrected(network: Network, feed: Feed, ratio: float, allocate: Callable[[float], Counts]) -> float:
    """Return the share to budget for so that the network, timed whole, takes `ratio` of its time.

    `allocate` returns the counts for a share. The network at these counts is timed against the unpruned one, and the
    share moved by as much as it missed, up or down; the largest that met the goal is taken.
    """
    one = {name: array[:1] for name, array in feed.items()}
    before = Runner(network.model)
    share, met = ratio, 0.0
    for _ in range(CORRECTIONS):
        after = Runner(network.pruned(allocate(share)))
        missed = race(partial(after.outputs, one), partial(before.outputs, one), WHOLE_SECONDS).ratio_min * ratio
        # A ratio above 1 means that the network is faster than was asked for.
        if missed >= 1:
            met = max(met, share)
        if 1 <= missed <= 1 + CLOSE:
            break
        share = min(share * missed / (1 + CLOSE / 2), 1.0)
    return met or share
