"""Operators that compute over axes: pools, reductions, normalisations, softmax."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from sartor.tools.prune.channels import Axis, Kept
from sartor.tools.prune.rules.registry import Node, rule


@rule("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool")
def pool(node: Node) -> None:
    """Identity on samples and channels."""
    data = node.axes(0)
    node.freeze(data[2:], "a pool runs along it")
    for index in range(len(node.node.outputs)):
        node.put((*data[:2], *(None,) * (len(data) - 2)), index)


@rule(
    "ArgMax", "ArgMin", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
)  # fmt: skip
def reduction(node: Node) -> None:
    """What is reduced keeps its channels; the other axes are as they were."""
    data = node.axes(0)
    if node.node.op_type.startswith("Arg"):
        listed: list[int] | None = [node.attr("axis", 0)]
    else:
        listed = node.integers(1, "axes")
    if not listed and node.attr("noop_with_empty_axes", 0):
        node.put(data)
        return
    over = {axis % len(data) for axis in listed} if listed else set(range(len(data)))
    node.freeze((data[i] for i in over), "it is reduced")
    keep = node.attr("keepdims", 1)
    node.put(None if i in over else labels for i, labels in enumerate(data) if keep or i not in over)


@rule("BatchNormalization", "InstanceNormalization")
def channelwise(node: Node) -> None:
    """Parameters go with the channels."""
    data = node.axes(0)
    for index in node.present[1:]:
        node.merge(data[1], node.labels(index, 0), "its data keeps all channels")
    if node.node.op_type == "InstanceNormalization":
        node.freeze(data[2:], "it is normalised")
        data = (*data[:2], *(None,) * (len(data) - 2))
    node.put(data)


@rule("GroupNormalization")
def group_norm(node: Node) -> None:
    """A group goes as a whole, so that the statistics of the others stay what they are."""
    data, groups = node.axes(0), node.attr("num_groups", 1)
    labels = data[1]
    if labels is None:
        node.freeze((node.axes(i)[0] for i in (1, 2)), "its data keeps all channels")
        node.put(data)
        return
    rows = labels.reshape(groups, -1)
    node.found.atoms.merge(rows[:, :1], rows)
    for index in (1, 2):
        parameters = node.labels(index, 0)
        node.found.atoms.merge(parameters.reshape(groups, -1), rows[:, :1])
    first = rows[:, 0].copy()

    def apply(copy: ir.Node, kept: Kept) -> None:
        copy.attributes["num_groups"] = ir.AttrInt64("num_groups", int(kept(first).sum()))

    node.edit((first,), apply)
    node.put(data)


@rule("LayerNormalization", "RMSNormalization")
def layer_norm(node: Node) -> None:
    """The statistics of what is normalised would change: it keeps its channels, and so do the parameters."""
    _normalised(node, range(node.attr("axis", -1) % len(node.axes(0)), len(node.axes(0))))


@rule("LogSoftmax", "Softmax", "Hardmax")
def softmax(node: Node) -> None:
    """Its channels weigh against each other."""
    rank = len(node.axes(0))
    axis = node.attr("axis", -1 if node.opset >= 13 else 1) % rank
    _normalised(node, (axis,) if node.opset >= 13 else range(axis, rank))


@rule("LpNormalization", "CumSum")
def along(node: Node) -> None:
    """One axis is computed over."""
    rank = len(node.axes(0))
    if node.node.op_type == "CumSum":
        listed = node.integers(1, "axis") or [0]
        _normalised(node, (listed[0] % rank,))
    else:
        _normalised(node, (node.attr("axis", -1) % rank,))


@rule("LRN")
def local_response(node: Node) -> None:
    """Neighbours along the channels take part."""
    _normalised(node, (1,))


@rule("MeanVarianceNormalization")
def mean_variance(node: Node) -> None:
    """Statistics over the listed axes."""
    _normalised(node, node.attr("axes", (0, 2, 3)))


def _normalised(node: Node, over: Iterable[int]) -> None:
    data, held = node.axes(0), set(over)
    node.freeze((data[i] for i in held), "it is normalised")
    for index in node.present[1:]:
        node.freeze(node.axes(index), "parameters of what is normalised")
    out: tuple[Axis, ...] = tuple(None if i in held else labels for i, labels in enumerate(data))
    node.put(out)
