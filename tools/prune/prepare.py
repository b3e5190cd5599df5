"""From a model and data to a network that can be pruned and the problem to solve."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from sartor.share.errors import GoalNotMetError, InputRefusedError
from sartor.share.inputs import required_inputs
from sartor.share.shapes import infer_shapes
from sartor.tools.prune.calibrate import calibrate
from sartor.tools.prune.data import Data, Split
from sartor.tools.prune.factors import find_channels
from sartor.tools.prune.features import facts_of
from sartor.tools.prune.kernels.costs import product_costs
from sartor.tools.prune.network import Network
from sartor.tools.prune.plan import Options
from sartor.tools.prune.problem import Problem
from sartor.tools.prune.units import find_units, resources

Interface = tuple[tuple[ir.TypeProtocol | None, ir.Shape | None], ...]

WIDE, ROUND = 8, 8
"""A unit is rounded to an eighth of its classes, at most to eight."""


@dataclass(frozen=True)
class Samples:
    """What weights are refitted on, what is judged on, and what neither has seen; the digest of all of it."""

    training: Split
    judging: Split
    testing: Split | None
    sha256: str


def read_samples(data: Data, options: Options) -> Samples:
    """Read the first samples of each split; `train` and `val` stand in for each other where one is missing.

    Raises InputRefusedError where there is neither.
    """
    train, val = (data.split(name, options.samples) for name in ("train", "val"))
    training, judging = train or val, val or train
    if training is None or judging is None:
        raise InputRefusedError("it has neither train/x nor val/x", subject=data.path, remedy="Add one of them")
    testing = data.split("test", None)
    digest = hashlib.sha256()
    for split in (training, judging):
        for array in (*split.inputs.values(), *split.labels.values()):
            digest.update(np.ascontiguousarray(array).tobytes())
    return Samples(training, judging, testing, digest.hexdigest())


def declared_interface(model: ir.Model) -> Interface:
    """Note the types of a model's inputs and outputs."""
    return tuple(
        (value.type, None if value.shape is None else value.shape.copy())
        for value in (*model.graph.inputs, *model.graph.outputs)
    )


def restore_interface(model: ir.Model, interface: Interface) -> None:
    """Declare inputs and outputs as they were, and leave the shapes in between to be inferred."""
    for node in model.graph:
        for out in node.outputs:
            out.shape = None
    for value, (kind, shape) in zip((*model.graph.inputs, *model.graph.outputs), interface, strict=True):
        value.type, value.shape = kind, shape


def fix_sizes(model: ir.Model, split: Split) -> None:
    """Give the inputs the sizes of the samples, but for the first axis, and infer all shapes."""
    for value in required_inputs(model):
        sample = split.inputs[str(value.name)]
        if value.shape is not None and sample.ndim > 0:
            value.shape = ir.Shape([value.shape[0], *sample.shape[1:]])
    infer_shapes(model)


def make_network(model: ir.Model, training: Split, options: Options) -> Network:
    """Find the channels of a model and calibrate its layers."""
    found = find_channels(model.graph, model.opset_imports[""])
    units = [unit for unit in find_units(found, options.keep) if len(unit.classes) > 1 and unit.readers]
    return Network(model, found, units, calibrate(model, found, training, options.threads))


def make_problem(network: Network, options: Options, subject: str) -> Problem:
    """State the problem; raises GoalNotMetError where nothing can be removed, or not enough."""
    if not network.units:
        raise GoalNotMetError("no channels can be removed", subject=subject, remedy="See --dry-run for the reasons")
    sizes = np.array([len(unit.classes) for unit in network.units])
    steps = np.array([_step(int(size), options.round_to) for size in sizes])
    least = np.maximum(np.ceil(options.least_ratio * sizes / steps).astype(np.int64) * steps, 1)
    found = resources(network.found, network.units)
    costs = product_costs(found.macs if options.budget.resource == "flops" else found.parameters)
    budget = options.budget.ratio * costs.total(sizes)
    reached = costs.total(least)
    if reached > budget:
        share = reached / costs.total(sizes)
        reason = f"at least {share:.1%} of {options.budget.resource} stay"
        raise GoalNotMetError(reason, subject=subject, remedy="Ask for more, or lower --min-ratio or --round")
    names = tuple(unit.name for unit in network.units)
    facts = facts_of(network.units)
    return Problem(names, sizes, np.minimum(least, sizes), steps, network.curves, facts, costs, budget)


def _step(size: int, wanted: int | None) -> int:
    if wanted is not None:
        return min(wanted, size)
    return 1 << int(np.log2(max(min(size // WIDE, ROUND), 1)))
