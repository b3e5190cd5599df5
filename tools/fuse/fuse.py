"""The story of `sartor fuse`: read, infer shapes, group, measure, judge, verify, emit, write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from sartor.share import console, history
from sartor.share.artifact import Model, read_model, write_model
from sartor.share.errors import UsageError
from sartor.share.shapes import declared_types, infer_shapes, restore_types
from sartor.tools.fuse import stock
from sartor.tools.fuse.coefficients import Coefficients, coefficients
from sartor.tools.fuse.context import burdens
from sartor.tools.fuse.emit import emit
from sartor.tools.fuse.group import Selection, costed, find_groups, mirrored
from sartor.tools.fuse.inline import inline_functions
from sartor.tools.fuse.judge import drop, judge, keep_all, packed
from sartor.tools.fuse.library import emit_library
from sartor.tools.fuse.measure import Setting, axis_sizes
from sartor.tools.fuse.plan import DOMAIN, Group, Plan, PlanKind, Verdict
from sartor.tools.fuse.probe import probed_axes
from sartor.tools.fuse.require import demand
from sartor.tools.fuse.search import Search
from sartor.tools.fuse.transposes import fold_swaps, rejoin_transposes, split_transposes
from sartor.tools.fuse.verify import BUDGET, verify


@dataclass(frozen=True)
class Options:
    """What the user asked for; `shapes` gives sizes by input or axis name.

    `require` are globs of nodes that have to lie in one kernel, `library` is where compiled kernels go.
    """

    selection: Selection = field(default_factory=Selection)
    measure: bool = True
    verify: bool = True
    require: tuple[str, ...] = ()
    library: str | None = None
    threads: int = 1
    seed: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    search: PlanKind = "search"


def fuse(source: str, target: str | None, options: Options, argv: Sequence[str] | None) -> Plan:
    """Fuse a model and write it; without a target only plan, without argv leave no history record.

    Raises InputRefusedError, UsageError, OutputError, WriteError.
    """
    model = read_model(source)
    inline_functions(model.ir)
    declared = declared_types(model.ir)
    infer_shapes(model.ir)
    before = _stock_view(model)
    folded, halves = fold_swaps(model.ir), split_transposes(model.ir)
    changed = before.refusal is None and (folded or halves)
    seen = _stock_view(model, "prepared") if changed else before
    for glob in options.selection.idle(model.ir):
        console.warn(f"{model.source}: no node has a name or an operator type like {glob!r}")
    plan = demand(make_plan(model, seen, options), model.ir, options.require)
    plan = replace(plan, dispatches_before=before.dispatches)
    if target is not None and not plan.unmet:
        emit(model.ir, plan.kept)
        cut = {half.rows.outputs[0] for half in rejoin_transposes(halves)}
        restore_types(model.ir, declared, keep=_call_operands(model.ir) | cut)
        if options.library is not None:
            emit_library(model, options.library)
        if argv is not None:
            _record(model, options, argv)
        write_model(model.ir, target)
    return plan


def make_plan(model: Model, before: stock.StockView, options: Options) -> Plan:
    """Find the groups of a model whose shapes are inferred, measure and judge them; the model stays as it is.

    `before` is what onnxruntime makes of the model.
    """
    rates = coefficients()
    groups, refused = _groups(model, before.absorbed, options, rates)
    setting, runs = _setting(model, groups, options, before.refusal is None)
    groups = costed(groups, setting.axes, options.threads, rates)
    verdicts = keep_all(groups)
    if options.measure:
        with console.progress("measuring groups", len(groups)) as step:
            verdicts = judge(groups, setting, step)
    verdicts = packed(verdicts, setting, options.measure, model.ir.opset_imports.get("", 1), rates)
    if options.measure and runs:
        verdicts = _in_context(model, verdicts, setting)
    if options.verify:
        verdicts = _verified(model, verdicts, setting)
    after = before if before.refusal is not None else _fused_view(model, verdicts)
    return Plan(verdicts, refused, before.dispatches, after.dispatches, rates.source)


def _groups(
    model: Model, absorbed: frozenset[str], options: Options, rates: Coefficients
) -> tuple[list[Group], dict[str, str]]:
    """Group the nodes that may share kernels, by search, as many as a kernel takes, or none."""
    if options.search == "off":
        return [], {}
    if options.search == "stitch-all":
        return find_groups(model.ir, absorbed, options.selection)
    try:
        axes = axis_sizes(model.ir, options.shapes)
    except UsageError:
        # What is wrong with the sizes is said where they are needed to measure.
        axes = {}
    planner = Search(axes, options.threads, rates, model.ir.opset_imports.get("", 1))
    return find_groups(model.ir, absorbed, options.selection, planner)


def _fused_view(model: Model, verdicts: Sequence[Verdict]) -> stock.StockView:
    kept = [verdict.group for verdict in verdicts if verdict.kept]
    members = [[group.id, group.call.function.name, *group.names] for group in kept]
    return stock.remembered_view(_fused_copy(model.ir, kept), [model.sha256, members])


def _stock_view(model: Model, *state: str) -> stock.StockView:
    """Look at a model, in the state that is named, through onnxruntime; one that it refuses may run elsewhere."""
    seen = stock.remembered_view(model.ir, [model.sha256, *state])
    if seen.refusal is not None:
        stock.require_valid(model.ir, model.source)
        console.warn(f"{model.source}: {seen.refusal}. Groups are judged alone")
    return seen


def _setting(model: Model, groups: Sequence[Group], options: Options, loads: bool) -> tuple[Setting, bool]:
    """Fix the sizes at which groups are measured, and tell whether the model runs at these sizes as far as is known."""
    axes: dict[str, int] = {}
    try:
        axes = axis_sizes(model.ir, options.shapes)
        if options.measure and loads:
            axes = probed_axes(model.ir, groups, axes, options.shapes, options.seed)
        return Setting(axes, options.threads, options.seed), loads
    except UsageError as error:
        if options.shapes and not axes:
            raise
        console.warn(f"{model.source}: {error.reason}. Groups of unknown sizes are left out. {error.remedy}")
        return Setting(axes, options.threads, options.seed), False


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


def _call_operands(model: ir.Model) -> set[ir.Value]:
    """Return the values whose types a session needs to find kernels."""
    calls = [node for graph in model.graphs() for node in graph if node.domain == DOMAIN]
    return {value for call in calls for value in (*call.inputs, *call.outputs) if value is not None}


def _record(model: Model, options: Options, argv: Sequence[str]) -> None:
    parameters = {
        "only": options.selection.only,
        "skip": options.selection.skip,
        "plan": options.search,
        "measure": options.measure,
        "verify": options.verify,
        "require": options.require,
        "threads": options.threads if options.measure else None,
        "shapes": {name: list(sizes) for name, sizes in options.shapes.items()},
    }
    previous = history.last_id(history.read_onnx(model.ir, model.source))
    record = history.make_record("fuse", argv, [model.sha256], parameters, options.seed, previous)
    history.append_onnx(model.ir, record, model.source)
