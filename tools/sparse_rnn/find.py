"""Find RNN, GRU and LSTM wherever they are in a model, with what they are and their constant weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, cast

import onnx_ir as ir
from numpy.typing import NDArray

from sartor.share.errors import InputRefusedError
from sartor.share.folding import constant_of
from sartor.tools.sparse_rnn.activations import parse_activations
from sartor.tools.sparse_rnn.oracle import DEFAULTS, GATES, Cell, Direction, Kind, Weights

Array = NDArray[Any]

W, R, BIAS, PEEPHOLES = 1, 2, 3, 7
"""Positions of the weights among a node's inputs."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A recurrent node, what it computes, and its weights; `batch_first` is ONNX's layout 1."""

    node: ir.Node
    name: str
    cell: Cell
    weights: Weights
    batch_first: bool

    @property
    def hidden(self) -> int:
        """The number of hidden units."""
        return int(self.weights.r.shape[2])


@dataclass(frozen=True)
class Found:
    """The layers that can be made sparse, and the recurrent nodes that can't, by name, with the reason."""

    layers: tuple[Layer, ...]
    refused: Mapping[str, str]


def find_layers(model: ir.Model, globs: Sequence[str] = (), subject: str = "") -> Found:
    """Find the recurrent nodes of all graphs whose names match a glob, all without globs.

    Raises InputRefusedError for a node that is not valid ONNX, such as the LSTM that torch writes for `proj_size`.
    """
    layers, refused = [], {}
    opset = model.opset_imports.get("", 1)
    for node in model.graph.all_nodes():
        if node.op_type not in GATES or node.domain not in ("", "ai.onnx"):
            continue
        name = str(node.name or node.outputs[0].name)
        if globs and not any(fnmatchcase(name, glob) for glob in globs):
            refused[name] = "--nodes leaves it out"
            continue
        weights = {place: constant_of(value, opset) for place, value in _weights(node)}
        computed = [place for place, array in weights.items() if array is None]
        if computed:
            refused[name] = f"its {_NAMES[computed[0]]} is computed from inputs of the model"
            continue
        layers.append(_layer(node, name, cast("dict[int, Array]", weights), subject))
    return Found(tuple(layers), refused)


_NAMES = {W: "input weight W", R: "recurrent weight R", BIAS: "bias B", PEEPHOLES: "peephole weight P"}


def _weights(node: ir.Node) -> Iterator[tuple[int, ir.Value]]:
    for place in (W, R, BIAS, PEEPHOLES):
        value = node.inputs[place] if place < len(node.inputs) else None
        if value is not None and (place != PEEPHOLES or node.op_type == "LSTM"):
            yield place, value


def _layer(node: ir.Node, name: str, weights: Mapping[int, Array], subject: str) -> Layer:
    cell = cell_of(node, f"{subject}: {name}")
    kind, directions, gates = cell.kind, cell.directions, len(GATES[cell.kind])
    held = Weights(weights[W], weights[R], weights.get(BIAS), weights.get(PEEPHOLES))
    hidden = held.r.shape[-1]
    wanted = {
        R: (held.r, (directions, gates * hidden, hidden)),
        W: (held.w, (directions, gates * hidden, held.w.shape[-1])),
        BIAS: (held.bias, (directions, 2 * gates * hidden)),
        PEEPHOLES: (held.peepholes, (directions, 3 * hidden)),
    }
    for place, (array, shape) in wanted.items():
        if array is not None and array.shape != shape:
            reason = f"{_NAMES[place]} of {kind} {name} has the shape {list(array.shape)}, not {list(shape)}"
            remedy = "torch writes such models for proj_size, which ONNX does not have: export without it"
            raise InputRefusedError(reason, subject=subject, remedy=remedy)
    return Layer(node, name, cell, held, _attribute(node, "layout") == 1)


def cell_of(node: ir.Node, subject: str) -> Cell:
    """Return what a recurrent node computes; raises InputRefusedError for what ONNX does not have."""
    kind = cast("Kind", node.op_type)
    direction = _text(node, "direction", "forward")
    directions = 2 if direction == "bidirectional" else 1
    names = _attribute(node, "activations") or DEFAULTS[kind] * directions
    alphas, betas = (_attribute(node, f"activation_{one}") or () for one in ("alpha", "beta"))
    return Cell(
        kind,
        cast("Direction", direction.lower()),
        parse_activations([_plain(one) for one in names], alphas, betas, subject),
        _attribute(node, "clip"),
        bool(_attribute(node, "linear_before_reset") or 0),
        bool(_attribute(node, "input_forget") or 0),
    )


def _attribute(node: ir.Node, name: str) -> Any:
    attribute = node.attributes.get(name)
    return None if attribute is None else attribute.value


def _text(node: ir.Node, name: str, default: str) -> str:
    return str(_plain(_attribute(node, name) or default))


def _plain(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
