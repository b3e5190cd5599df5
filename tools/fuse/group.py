"""Groups: the regions of a model with everything that the plan says about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from sartor.tools.fuse.cost import bytes_saved
from sartor.tools.fuse.options import Selection
from sartor.tools.fuse.places import PROCESSOR, Cost, Place
from sartor.tools.fuse.plan import Group
from sartor.tools.fuse.regions import Analysis, Planner, Region, find_regions


def find_groups(
    model: ir.Model,
    absorbed: frozenset[str],
    selection: Selection,
    planner: Planner | None = None,
    place: Place = PROCESSOR,
) -> tuple[list[Group], dict[str, str]]:
    """Find the groups of all graphs of a model for a place, and why the other nodes are in none."""
    analysis = Analysis(model.opset_imports.get("", 1), absorbed, planner=planner, place=place)
    nodes = [node for graph in model.graphs() for node in graph]
    analysis.refused.update({node: "not selected" for node in nodes if not selection.admits(node)})
    regions = [region for graph in model.graphs() for region in find_regions(graph, analysis)]
    return [_group(i, region) for i, region in enumerate(regions)], _reasons(analysis)


def costed(groups: Sequence[Group], axes: Mapping[str, int], place: Place) -> list[Group]:
    """Settle how a group runs, and add how it is composed and what it saves and costs at given sizes."""
    known: dict[object, Cost] = {}
    out = []
    for group in groups:
        key = (group.call.function.name, group.call.inputs)
        if key not in known:
            known[key] = place.settle(group.call, axes)
        cost, saved = known[key], bytes_saved(group.nodes, group.outputs, axes)
        out.append(
            replace(
                group,
                composition=cost.composition,
                bytes_saved=saved,
                predicted_us=cost.predicted_us,
                launches=cost.launches,
            )
        )
    return out


def _reasons(analysis: Analysis) -> dict[str, str]:
    named = ((node.name or str(node.outputs[0].name), reason) for node, reason in analysis.refused.items())
    return {name: reason for name, reason in named if name}


def _group(number: int, region: Region) -> Group:
    return Group(
        id=f"g{number}",
        graph=region.graph,
        nodes=region.nodes,
        inputs=region.outlined.inputs,
        outputs=region.outlined.outputs,
        call=region.call,
    )


def mirrored(groups: Sequence[Group], original: ir.Model, copy: ir.Model) -> list[Group]:
    """Return the same groups of a clone of their model."""
    values: dict[ir.Value, ir.Value] = {}
    nodes: dict[ir.Node, ir.Node] = {}
    graphs: dict[int, ir.Graph] = {}
    for left, right in zip(original.graphs(), copy.graphs(), strict=True):
        graphs[id(left)] = right
        values.update(zip(left.inputs, right.inputs, strict=True))
        values.update({value: right.initializers[name] for name, value in left.initializers.items()})
        for a, b in zip(left, right, strict=True):
            nodes[a] = b
            values.update(zip(a.outputs, b.outputs, strict=True))
    return [_moved(group, nodes, values, graphs) for group in groups]


def _moved(
    group: Group, nodes: Mapping[ir.Node, ir.Node], values: Mapping[ir.Value, ir.Value], graphs: Mapping[int, ir.Graph]
) -> Group:
    return replace(
        group,
        graph=graphs[id(group.graph)],
        nodes=tuple(nodes[node] for node in group.nodes),
        inputs=tuple(None if value is None else values[value] for value in group.inputs),
        outputs=tuple(values[value] for value in group.outputs),
    )
