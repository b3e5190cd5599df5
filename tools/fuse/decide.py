"""Deciding on a plan: find groups, measure and judge them, pack what is kept, look at it in its model, verify."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from sartor.share import console
from sartor.share.artifact import Model
from sartor.share.errors import UsageError
from sartor.tools.fuse import stock
from sartor.tools.fuse.context import burdens
from sartor.tools.fuse.emit import emit
from sartor.tools.fuse.group import costed, find_groups, mirrored
from sartor.tools.fuse.judge import drop, judge, keep_all, packed
from sartor.tools.fuse.measure import Setting, axis_sizes
from sartor.tools.fuse.options import Options
from sartor.tools.fuse.places import Place, place_for
from sartor.tools.fuse.plan import Group, Plan, Verdict
from sartor.tools.fuse.probe import probed_axes
from sartor.tools.fuse.search import Search
from sartor.tools.fuse.verify import BUDGET, verify


def make_plan(model: Model, before: stock.StockView, options: Options) -> Plan:
    """Find the groups of a model whose shapes are inferred, measure and judge them; the model stays as it is.

    `before` is what onnxruntime makes of the model.
    """
    place = place_for(options.device, options.threads, options.measure)
    groups, refused = _groups(model, before.absorbed if options.device == "cpu" else frozenset(), options, place)
    setting, runs = _setting(model, groups, options, place, before.refusal is None)
    groups = costed(groups, setting.axes, place)
    verdicts = keep_all(groups)
    if options.measure:
        with console.progress("measuring groups", len(groups)) as step:
            verdicts = judge(groups, setting, step)
    verdicts = packed(verdicts, setting, options.measure, model.ir.opset_imports.get("", 1))
    if options.measure and runs:
        verdicts = _in_context(model, verdicts, setting)
    if options.verify:
        verdicts = _verified(model, verdicts, setting)
    after = before if before.refusal is not None else _fused_view(model, verdicts)
    return Plan(verdicts, refused, before.dispatches, after.dispatches, place.source)


def _groups(
    model: Model, absorbed: frozenset[str], options: Options, place: Place
) -> tuple[list[Group], dict[str, str]]:
    """Group the nodes that may share kernels, by search, as many as a kernel takes, or none."""
    if options.search == "off":
        return [], {}
    if options.search == "stitch-all":
        return find_groups(model.ir, absorbed, options.selection, place=place)
    try:
        axes = axis_sizes(model.ir, options.shapes)
    except UsageError:
        # What is wrong with the sizes is said where they are needed to measure.
        axes = {}
    planner = Search(axes, place, model.ir.opset_imports.get("", 1))
    return find_groups(model.ir, absorbed, options.selection, planner, place)


def _fused_view(model: Model, verdicts: Sequence[Verdict]) -> stock.StockView:
    kept = [verdict.group for verdict in verdicts if verdict.kept]
    members = [[group.id, group.call.function.name, *group.names] for group in kept]
    return stock.remembered_view(_fused_copy(model.ir, kept), [model.sha256, members])


def _setting(
    model: Model, groups: Sequence[Group], options: Options, place: Place, loads: bool
) -> tuple[Setting, bool]:
    """Fix the sizes at which groups are measured, and tell whether the model runs at these sizes as far as is known."""
    axes: dict[str, int] = {}
    try:
        axes = axis_sizes(model.ir, options.shapes)
        if options.measure and loads:
            axes = probed_axes(model.ir, groups, axes, options.shapes, options.seed)
        return Setting(axes, place, options.seed), loads
    except UsageError as error:
        if options.shapes and not axes:
            raise
        console.warn(f"{model.source}: {error.reason}. Groups of unknown sizes are left out. {error.remedy}")
        return Setting(axes, place, options.seed), False


def _in_context(model: Model, verdicts: tuple[Verdict, ...], setting: Setting) -> tuple[Verdict, ...]:
    kept = sorted((verdict for verdict in verdicts if verdict.kept), key=lambda verdict: verdict.ratio)
    functions = list(dict.fromkeys(verdict.group.call.function.name for verdict in kept))
    fused = _fused_copy(model.ir, [verdict.group for verdict in verdicts if verdict.kept])
    try:
        return drop(verdicts, burdens(fused, model.ir, functions, setting, model.sha256))
    except UsageError as error:
        console.warn(f"{model.source}: {error.reason}. Groups are judged alone. {error.remedy}")
        return verdicts


def _verified(model: Model, verdicts: tuple[Verdict, ...], setting: Setting) -> tuple[Verdict, ...]:
    """Compare the kernels with their bodies, and say what is wrong with them and what was left for another time."""
    with console.progress("verifying kernels", len(verdicts)) as step:
        checked = verify(verdicts, setting, step)
    failed = {v.group.call.function.name: v.verified.reason for v in checked if not v.verified.ok}
    late = {v.group.call.function.name for v in checked if v.verified.reason == BUDGET}
    for name, reason in failed.items():
        console.warn(f"{model.source}: the kernel of {name} gives other results: {reason}. It is left out")
    if late:
        console.warn(f"{model.source}: kernels left unverified: {len(late)} ({BUDGET}). Run it again to go on")
    return checked


def _fused_copy(model: ir.Model, groups: Sequence[Group]) -> ir.Model:
    """Emit groups into a copy of their model."""
    copy = model.clone()
    emit(copy, mirrored(groups, model, copy))
    return copy
