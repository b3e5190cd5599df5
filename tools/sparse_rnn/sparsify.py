"""The story of `sartor sparsify-rnn`: read, find layers, choose what stays or train towards it, code, emit, write."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from sartor.share import history
from sartor.share.artifact import Model, write_model
from sartor.share.console import progress
from sartor.share.data import open_data
from sartor.share.errors import GoalNotMetError, InputRefusedError
from sartor.share.packs import write_packs
from sartor.tools.sparse_rnn.choose import Matrices, choose, weight_of
from sartor.tools.sparse_rnn.emit import emit
from sartor.tools.sparse_rnn.encode import Coded, encode
from sartor.tools.sparse_rnn.executor import pack_calls
from sartor.tools.sparse_rnn.find import Layer, find_layers
from sartor.tools.sparse_rnn.kernels.form import this_machine
from sartor.tools.sparse_rnn.layouts import put_steps_first
from sartor.tools.sparse_rnn.packed import about
from sartor.tools.sparse_rnn.plan import Options, Plan, Results, Tuning
from sartor.tools.sparse_rnn.report import describe
from sartor.tools.sparse_rnn.statedict import read_source


def sparsify(
    source: str, target: str | None, options: Options, argv: Sequence[str] | None, tuning: Tuning | None = None,
    pack: str | None = None,
) -> Plan:  # fmt: skip
    """Make the recurrent layers of a model or state dict sparse and write it, or only say what would become of them.

    `pack` is where their weights go as the kernels of this machine read them.

    Raises InputRefusedError, GoalNotMetError where there is no recurrent layer, OutputError and WriteError.
    """
    read = read_source(source)
    model = read.model
    found = find_layers(model.ir, options.nodes, model.source)
    if not found.layers:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.refused.items()) or "it has none"
        remedy = "Give a model with RNN, GRU or LSTM nodes of constant weights"
        raise GoalNotMetError(f"no recurrent layer can be made sparse ({reasons})", subject=model.source, remedy=remedy)
    before = size_of(model.ir)
    put_steps_first(model.ir, found.layers)
    if tuning is None:
        kept, results = choose(found.layers, options), None
        coded = code(kept, options)
        emit(model.ir, coded)
    else:
        kept, coded, results = _tuned(model, found.layers, options, tuning)
    plan = describe(kept, coded, found.refused, before, size_of(model.ir), results, read.notes)
    if argv is not None:
        _record(model, options, tuning, argv)
    if target is not None:
        write_model(model.ir, target)
    if pack is not None:
        records = [] if argv is None else history.read_onnx(model.ir, model.source)
        write_packs(pack_calls(model.ir), about(this_machine()), records, pack)
    return plan


def code(kept: Matrices, options: Options) -> dict[Layer, dict[int, Coded]]:
    """Code what stays of layers."""
    dtype = np.float16 if options.values == "fp16" else np.float32
    return {
        layer: {place: encode(weight_of(layer, place), mask, dtype) for place, mask in matrices.items()}
        for layer, matrices in kept.items()
    }


def _tuned(
    model: Model, layers: Sequence[Layer], options: Options, tuning: Tuning
) -> tuple[Matrices, dict[Layer, dict[int, Coded]], Results]:
    """Train, code and emit, and measure the quality before and after on samples that training does not see."""
    from sartor.share.training import steps_of
    from sartor.tools.sparse_rnn.finetune import tune
    from sartor.tools.sparse_rnn.samples import batch_axes, outputs_of, quality

    axes = batch_axes(model.ir, model.source)
    with open_data(tuning.data, model.ir, axes) as data:
        train, held_out = data.split("train"), data.split("val") or data.split("test")
    if train is None or held_out is None:
        raise InputRefusedError("it lacks train/x or val/x", subject=tuning.data, remedy="Give both")
    original = outputs_of(model.ir, held_out, axes, tuning.threads)
    wanted = outputs_of(model.ir, train, axes, tuning.threads) if tuning.distill else None
    with progress("gradient steps", steps_of(train, tuning.epochs)) as step:
        tuned = tune(model.ir, layers, options, tuning, train, wanted, axes, step)
    coded = code(tuned.kept, options)
    emit(model.ir, coded)
    sparse = outputs_of(model.ir, held_out, axes, tuning.threads)
    before, after = (quality(one, held_out, original) for one in (original, sparse))
    metric = "accuracy" if held_out.labels else "likeness"
    return tuned.kept, coded, Results(metric, before, after, tuned.losses)


def size_of(model: ir.Model) -> int:
    """Return the bytes of a model's constants."""
    values = [value.const_value for graph in model.graphs() for value in graph.initializers.values()]
    nodes = (node.attributes.get("value") for node in model.graph.all_nodes() if node.op_type == "Constant")
    tensors = [one.as_tensor() for one in nodes if one is not None]
    return sum(one.nbytes for one in (*values, *tensors) if one is not None)


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _record(model: Model, options: Options, tuning: Tuning | None, argv: Sequence[str]) -> None:
    parameters = {
        "density": options.density,
        "pattern": [options.pattern.kind, *options.pattern.size],
        "scope": options.scope,
        "also_input": options.also_input,
        "nodes": options.nodes,
        "values": options.values,
    }
    inputs, seed = [model.sha256], 0
    if tuning is not None:
        parameters |= {name: getattr(tuning, name) for name in ("epochs", "rate", "schedule", "distill")}
        inputs, seed = [model.sha256, _digest(tuning.data)], tuning.seed
    previous = history.last_id(history.read_onnx(model.ir, model.source))
    record = history.make_record("sparsify-rnn", argv, inputs, parameters, seed, previous)
    history.append_onnx(model.ir, record, model.source)
