"""From a model and data to a network that can be pruned and the problem to solve."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from sartor.share.data import Data, Split
from sartor.share.errors import GoalNotMetError, InputRefusedError
from sartor.share.inputs import required_inputs
from sartor.tools.prune.allocate import Cost, cost_of
from sartor.tools.prune.calibrate import calibrate
from sartor.tools.prune.factors import find_channels
from sartor.tools.prune.features import facts_of
from sartor.tools.prune.latency import corrected, latency_nodes
from sartor.tools.prune.network import Network
from sartor.tools.prune.places import place_of
from sartor.tools.prune.plan import Options
from sartor.tools.prune.problem import Counts, Problem
from sartor.tools.prune.sizes import infer_all_shapes
from sartor.tools.prune.spread import kept_layers
from sartor.tools.prune.strategies.prior import prior
from sartor.tools.prune.units import find_units, resources
from sartor.tools.prune.unshare import unshare

Interface = tuple[tuple[ir.TypeProtocol | None, ir.Shape | None], ...]

SHOWN = 3
"""Reasons of an error that are shown."""

MORE = 4
"""Times as many samples judge the best of the search once more."""

WIDE, ROUND = 8, 8
"""A unit is rounded to an eighth of its classes, at most to eight."""


@dataclass(frozen=True)
class Samples:
    """What weights are refitted on, what is judged on, and what neither has seen; the digest of the first two.

    `choosing` is what the best of the search are judged on once more: the samples that were judged on, and others.
    `tuning` is all that fine-tuning may see, None without it.
    """

    training: Split
    judging: Split
    choosing: Split
    testing: Split | None
    tuning: Split | None
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
    choosing = data.split("val", MORE * options.samples) or judging
    tuning = (data.split("train", None) or training) if options.finetune else None
    digest = hashlib.sha256()
    for split in (training, judging):
        for array in (*split.inputs.values(), *split.labels.values()):
            digest.update(np.ascontiguousarray(array).tobytes())
    return Samples(training, judging, choosing, testing, tuning, digest.hexdigest())


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
    unshare(model.graph)
    for value in required_inputs(model):
        sample = split.inputs[str(value.name)]
        if value.shape is not None and sample.ndim > 0:
            value.shape = ir.Shape([value.shape[0], *sample.shape[1:]])
    infer_all_shapes(model, split.inputs)


def make_network(model: ir.Model, training: Split, options: Options) -> Network:
    """Find the channels of a model and calibrate its layers."""
    found = find_channels(model.graph, model.opset_imports[""])
    units = [unit for unit in find_units(found, options.keep) if len(unit.classes) > 1 and unit.readers]
    place = place_of(options.device, options.threads)
    return Network(model, found, units, calibrate(model, found, training, place), place)


def make_problem(network: Network, training: Split, options: Options, subject: str, resumed: Problem | None) -> Problem:
    """State the problem; raises GoalNotMetError where nothing can be removed, or not enough.

    Latencies are taken over from a problem that is resumed, because they differ from one measurement to the next.
    """
    if not network.units:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in kept_layers(network.found)[:SHOWN])
        remedy = "Export it without what keeps them, or relax --keep"
        raise GoalNotMetError(f"no channels can be removed ({reasons or 'no layers'})", subject=subject, remedy=remedy)
    sizes = np.array([len(unit.classes) for unit in network.units])
    steps = np.array([_step(int(size), options.round_to) for size in sizes])
    least = np.minimum(np.maximum(np.ceil(options.least_ratio * sizes / steps).astype(np.int64) * steps, 1), sizes)
    names = tuple(unit.name for unit in network.units)
    costs = _costs(network, training, options, resumed)
    whole = Problem(names, sizes, least, steps, network.curves, facts_of(network.units), costs, costs.total(sizes))
    reached, full = costs.total(least), whole.budget
    if reached > options.budget.ratio * full:
        reason = f"at least {reached / full:.1%} of {options.budget.resource} stay"
        raise GoalNotMetError(reason, subject=subject, remedy="Ask for more, or lower --min-ratio or --round")
    if options.budget.resource != "latency":
        return replace(whole, budget=options.budget.ratio * full)
    if resumed is not None:
        return replace(whole, budget=resumed.budget)

    def allocated(share: float) -> Counts:
        return prior(replace(whole, budget=max(share * full, reached)))

    return replace(
        whole, budget=max(corrected(network, training.inputs, options.budget.ratio, allocated) * full, reached)
    )


def _costs(network: Network, training: Split, options: Options, resumed: Problem | None) -> Cost:
    if options.budget.resource == "latency":
        if resumed is not None:
            return resumed.costs
        nodes = latency_nodes(network, training.inputs, options.seed)
    else:
        found = resources(network.found, network.units)
        nodes = found.macs if options.budget.resource == "flops" else found.parameters
    return cost_of(nodes, len(network.units))


def _step(size: int, wanted: int | None) -> int:
    if wanted is not None:
        return min(wanted, size)
    return 1 << int(np.log2(max(min(size // WIDE, ROUND), 1)))
