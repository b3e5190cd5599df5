"""What came of it: both models measured, each unit before and after, and why layers kept all channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import onnx_ir as ir

from sartor.share.data import Split
from sartor.share.tables import Table, plain
from sartor.share.timing import race
from sartor.tools.prune.allocate import cost_of
from sartor.tools.prune.calibrate import MOST_COLUMNS, columns, refittable
from sartor.tools.prune.evaluate import Judge, Runner, make_judge
from sartor.tools.prune.network import Network
from sartor.tools.prune.plan import Measure, Options, Plan, UnitPlan
from sartor.tools.prune.prepare import Samples
from sartor.tools.prune.problem import Counts
from sartor.tools.prune.search import Outcome
from sartor.tools.prune.spread import kept_layers
from sartor.tools.prune.units import resources

SECONDS = 1.0
FALLEN, MISSED = 0.98, 0.03
"""The share of the latency below which it counts as fallen; and that by which a budget of latency may be missed."""


def describe(
    network: Network, small: ir.Model, best: Counts, judge: Judge, samples: Samples, outcome: Outcome,
    losses: Sequence[float], error: float, seconds: float, options: Options,
) -> Plan:  # fmt: skip
    """Measure the model before and after, and put together what people and programs want to know."""
    judges = {"val": judge}
    if samples.testing is not None:
        judges["test"] = make_judge(network.model, samples.testing, judge.metric, options.threads, "test")
    latencies = _latencies(network.model, small, samples.training)
    full = np.array([len(unit.classes) for unit in network.units])
    before, after = (
        _measure(model, network, counts, judges, latency)
        for model, counts, latency in zip((network.model, small), (full, best), latencies, strict=True)
    )
    notes = []
    if after.latency_us > FALLEN * before.latency_us:
        notes.append(f"the latency did not fall: {before.latency_us:.0f} us before, {after.latency_us:.0f} us after")
    if (
        options.budget.resource == "latency"
        and after.latency_us > (1 + MISSED) * options.budget.ratio * before.latency_us
    ):
        share = after.latency_us / before.latency_us
        notes.append(
            f"the latency is {share:.1%} of the original's, more than the {options.budget.ratio:.1%} asked for"
        )
    notes += [
        f"{layer.node.name or layer.node.outputs[0].name} reads {columns(layer)} columns: too many to refit it"
        for layer in network.found.layers
        if refittable(layer) and columns(layer) > MOST_COLUMNS
    ]
    return Plan(
        options.budget, judge.metric.name, _units(network, best), kept_layers(network.found), options.search,
        options.start, len(outcome.scores), outcome.evaluated, seconds, tuple(outcome.scores.tolist()),
        tuple(losses), before, after, error, tuple(notes),
    )  # fmt: skip


def _measure(model: ir.Model, network: Network, counts: Counts, judges: dict[str, Judge], latency: float) -> Measure:
    found = resources(network.found, network.units)
    size = len(ir.serde.serialize_model(model).SerializeToString())
    scores = {name: judge.score(model) for name, judge in judges.items()}
    macs, parameters = (round(cost_of(nodes, len(counts)).total(counts)) for nodes in (found.macs, found.parameters))
    return Measure(scores, macs, parameters, size, latency)


def _latencies(before: ir.Model, after: ir.Model, split: Split) -> tuple[float, float]:
    """Time both models call by call on one sample and one thread; microseconds, minima."""
    feed = {name: array[:1] for name, array in split.inputs.items()}
    runners = [Runner(model) for model in (before, after)]
    times = race(lambda: runners[0].outputs(feed), lambda: runners[1].outputs(feed), SECONDS)
    return times.a.minimum, times.b.minimum


def _units(network: Network, counts: Counts) -> tuple[UnitPlan, ...]:
    return tuple(
        UnitPlan(
            unit.name,
            tuple(str(layer.node.name) for layer in unit.makers),
            len(unit.classes),
            int(count),
            float(curve[count]),
        )
        for unit, count, curve in zip(network.units, counts, network.curves, strict=True)
    )


def as_data(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON holds it."""
    return {"schema": 1, "tool": "prune", **asdict(plan)}


def headline(plan: Plan) -> str:
    """Say in one line what became of the model."""
    before, after = plan.before, plan.after
    split = "test" if "test" in before.scores else "val"
    return (
        f"MACs {after.macs / before.macs:.1%}, parameters {after.parameters / before.parameters:.1%}, "
        f"latency {after.latency_us / before.latency_us:.1%}, "
        f"{plan.metric} ({split}) {before.scores[split]:.4f} -> {after.scores[split]:.4f}"
    )


def as_text(plan: Plan) -> str:
    """Return the plan for people: both models, the units, and what stayed as it is."""
    tables = [
        Table("model", ("", "before", "after"), tuple(_rows(plan.before, plan.after, plan.metric))),
        Table(
            "units",
            ("unit", "before", "after", "lost"),
            tuple((u.name, str(u.before), str(u.after), f"{u.residual:.4f}") for u in plan.units),
        ),
        Table("kept whole", ("layer", "because"), tuple(plan.kept)),
    ]
    lines = [headline(plan), f"{plan.evaluated} evaluations of {plan.episodes} episodes, {plan.seconds:.1f} s"]
    return "\n\n".join(["\n".join([*lines, *plan.notes]), *(plain(table) for table in tables if table.rows)])


def _rows(before: Measure, after: Measure, metric: str) -> Sequence[tuple[str, str, str]]:
    rows = [
        (f"{metric} ({name})", f"{score:.4f}", f"{after.scores[name]:.4f}") for name, score in before.scores.items()
    ]
    rows += [
        ("MACs", f"{before.macs}", f"{after.macs}"),
        ("parameters", f"{before.parameters}", f"{after.parameters}"),
        ("bytes", f"{before.bytes}", f"{after.bytes}"),
        ("latency us", f"{before.latency_us:.1f}", f"{after.latency_us:.1f}"),
    ]
    return rows
