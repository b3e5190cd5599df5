"""The story of `sartor sparsify-rnn`: read, find the layers, choose what stays, code it, emit, check, write."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from sartor.share import history
from sartor.share.artifact import Model, read_model, write_model
from sartor.share.errors import GoalNotMetError
from sartor.tools.sparse_rnn.emit import emit
from sartor.tools.sparse_rnn.encode import Coded, encode
from sartor.tools.sparse_rnn.find import Layer, R, W, find_layers
from sartor.tools.sparse_rnn.layouts import put_steps_first
from sartor.tools.sparse_rnn.oracle import GATES
from sartor.tools.sparse_rnn.pattern import Mask, masks
from sartor.tools.sparse_rnn.plan import Options, Plan
from sartor.tools.sparse_rnn.report import describe

Matrices = dict[Layer, dict[int, Mask]]
"""What stays of the weights of layers by their positions, [D, G H, columns]."""


def sparsify(source: str, target: str | None, options: Options, argv: Sequence[str] | None) -> Plan:
    """Make the recurrent layers of a model sparse and write it; without a target only say what would become of them.

    Raises InputRefusedError, GoalNotMetError where there is no recurrent layer, OutputError and WriteError.
    """
    model = read_model(source)
    found = find_layers(model.ir, options.nodes, model.source)
    if not found.layers:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.refused.items()) or "it has none"
        remedy = "Give a model with RNN, GRU or LSTM nodes of constant weights"
        raise GoalNotMetError(f"no recurrent layer can be made sparse ({reasons})", subject=model.source, remedy=remedy)
    before = size_of(model.ir)
    kept = choose(found.layers, options)
    coded = {layer: {place: _coded(layer, place, mask, options) for place, mask in one.items()}
             for layer, one in kept.items()}  # fmt: skip
    put_steps_first(model.ir, found.layers)
    emit(model.ir, coded)
    plan = describe(kept, coded, found.refused, before, size_of(model.ir))
    if target is not None:
        if argv is not None:
            _record(model, options, argv)
        write_model(model.ir, target)
    return plan


def choose(layers: Sequence[Layer], options: Options) -> Matrices:
    """Choose what stays of the recurrent weights, and of the input weights if asked to."""
    slots = [(layer, place) for layer in layers for place in ((W, R) if options.also_input else (R,))]
    chosen: Matrices = {layer: {} for layer in layers}
    # All that share a number of gates are chosen among at once, so that a threshold may be that of the whole model.
    for gates in sorted({len(GATES[layer.cell.kind]) for layer in layers}):
        mine = [(layer, place) for layer, place in slots if len(GATES[layer.cell.kind]) == gates]
        matrices = [matrix for layer, place in mine for matrix in weight_of(layer, place)]
        found = iter(masks(matrices, gates, options.pattern, options.density, options.scope))
        for layer, place in mine:
            chosen[layer][place] = np.stack([next(found) for _ in range(layer.cell.directions)])
    return chosen


def weight_of(layer: Layer, place: int) -> np.ndarray:
    """Return the weight [D, G H, columns] of a layer at a position of its inputs."""
    return layer.weights.w if place == W else layer.weights.r


def size_of(model: ir.Model) -> int:
    """Return the bytes of a model's constants."""
    values = [value.const_value for graph in model.graphs() for value in graph.initializers.values()]
    nodes = (node.attributes.get("value") for node in model.graph.all_nodes() if node.op_type == "Constant")
    tensors = [one.as_tensor() for one in nodes if one is not None]
    return sum(one.nbytes for one in (*values, *tensors) if one is not None)


def _coded(layer: Layer, place: int, mask: Mask, options: Options) -> Coded:
    return encode(weight_of(layer, place), mask, np.float16 if options.values == "fp16" else np.float32)


def _record(model: Model, options: Options, argv: Sequence[str]) -> None:
    parameters = {
        "density": options.density,
        "pattern": [options.pattern.kind, *options.pattern.size],
        "scope": options.scope,
        "also_input": options.also_input,
        "nodes": options.nodes,
        "values": options.values,
    }
    previous = history.last_id(history.read_onnx(model.ir, model.source))
    record = history.make_record("sparsify-rnn", argv, [model.sha256], parameters, 0, previous)
    history.append_onnx(model.ir, record, model.source)
