"""Sizes that only a run reveals: names that shape inference made up are bound by running the original model once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

from sartor.share.execute import output_names, run_session
from sartor.share.inputs import random_inputs
from sartor.share.runtime import load
from sartor.tools.fuse.axes import NotEmittableError, parse_size
from sartor.tools.fuse.plan import Group

LARGEST = 1 << 30
"""Bytes of weights above which a model is not run."""


def probed_axes(
    model: ir.Model, groups: Iterable[Group], axes: Mapping[str, int], given: Mapping[str, tuple[int, ...]], seed: int
) -> dict[str, int]:
    """Return `axes` together with the sizes of other names in the groups' types, as a run on random inputs shows them.

    Raises UsageError if the model does not run on random inputs of these sizes.
    """
    wanted = {value for group in groups for value in _open(group, axes) if value.graph is model.graph}
    if not wanted or _weight(model) > LARGEST:
        return dict(axes)
    names = [str(value.name) for value in wanted]
    copy = model.clone()
    inner = {value.name: value for node in copy.graph for value in node.outputs}
    copy.graph.outputs.extend(inner[name] for name in names if name in inner and not inner[name].is_graph_output())
    session, feed = load(copy, threads=1), random_inputs(model, given, [seed])
    made = dict(zip(output_names(session), run_session(session, feed, "the model"), strict=True))
    found = dict(axes)
    for value, result in ((value, made[str(value.name)]) for value in wanted if str(value.name) in made):
        for dim, size in zip(value.shape or (), result.shape, strict=True):
            if not isinstance(dim, int) and dim.value is not None:
                found.setdefault(dim.value, int(size))
    return found


def _open(group: Group, axes: Mapping[str, int]) -> Iterable[ir.Value]:
    """Yield the inputs of a group that have a name without a size."""
    for value in group.inputs:
        if value is not None and value.shape is not None and not _known(value.shape, axes):
            yield value


def _known(shape: ir.Shape, axes: Mapping[str, int]) -> bool:
    try:
        sizes = [parse_size(dim if isinstance(dim, int) else dim.value) for dim in shape]
    except NotEmittableError:
        return False
    return all(name in axes for size in sizes for name in size.names)


def _weight(model: ir.Model) -> int:
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
