"""The story of `sartor fuse`: read, infer shapes, decide on a plan, emit, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from sartor.share import console, history
from sartor.share.artifact import Model, read_model, write_model
from sartor.share.shapes import declared_types, infer_shapes, restore_types
from sartor.tools.fuse import stock
from sartor.tools.fuse.decide import make_plan
from sartor.tools.fuse.emit import emit
from sartor.tools.fuse.inline import inline_functions
from sartor.tools.fuse.library import emit_library
from sartor.tools.fuse.options import Options
from sartor.tools.fuse.plan import DOMAIN, Plan
from sartor.tools.fuse.require import demand
from sartor.tools.fuse.transposes import fold_swaps, rejoin_transposes, split_transposes


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


def _stock_view(model: Model, *state: str) -> stock.StockView:
    """Look at a model, in the state that is named, through onnxruntime; one that it refuses may run elsewhere."""
    seen = stock.remembered_view(model.ir, [model.sha256, *state])
    if seen.refusal is not None:
        stock.require_valid(model.ir, model.source)
        console.warn(f"{model.source}: {seen.refusal}. Groups are judged alone")
    return seen


def _call_operands(model: ir.Model) -> set[ir.Value]:
    """Return the values whose types a session needs to find kernels."""
    calls = [node for graph in model.graphs() for node in graph if node.domain == DOMAIN]
    return {value for call in calls for value in (*call.inputs, *call.outputs) if value is not None}


def _record(model: Model, options: Options, argv: Sequence[str]) -> None:
    parameters = {
        "only": options.selection.only,
        "skip": options.selection.skip,
        "plan": options.search,
        "device": options.device,
        "measure": options.measure,
        "verify": options.verify,
        "require": options.require,
        "threads": options.threads if options.measure else None,
        "shapes": {name: list(sizes) for name, sizes in options.shapes.items()},
    }
    previous = history.last_id(history.read_onnx(model.ir, model.source))
    record = history.make_record("fuse", argv, [model.sha256], parameters, options.seed, previous)
    history.append_onnx(model.ir, record, model.source)
