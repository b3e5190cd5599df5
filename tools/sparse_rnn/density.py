"""How dense the coded matrices of a model are, and where their weights lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sartor.share.density import MAP_COLUMNS, MAP_ROWS, GateDensity, MatrixDensity
from sartor.share.errors import InputRefusedError
from sartor.tools.sparse_rnn.emit import DOMAIN, MATRICES, coded_names
from sartor.tools.sparse_rnn.encode import Coded, decoded_shape, positions
from sartor.tools.sparse_rnn.oracle import GATES

Array = NDArray[Any]


def densities(model: ir.Model, subject: str) -> tuple[MatrixDensity, ...]:
    """Return the coded matrices of all calls in a model, direction by direction, in the order of the graph.

    Raises InputRefusedError where gaps lead out of a matrix.
    """
    found: list[MatrixDensity] = []
    for node in model.graph.all_nodes():
        function = model.functions.get(node.op_identifier()) if node.domain == DOMAIN else None
        if function is None or function[-1].op_type not in GATES:
            continue
        for name, coded in _coded(node, function):
            found += _directions(str(node.name or node.outputs[0].name), function[-1].op_type, name, coded, subject)
    return tuple(found)


def _coded(call: ir.Node, function: ir.Function) -> Iterator[tuple[str, Coded]]:
    """Yield the coded matrices of a call that are constants, by their letters."""
    given = dict(zip((value.name for value in function.inputs), call.inputs, strict=False))
    for place, letter in MATRICES.items():
        parts = [given.get(name) for name in coded_names(place)]
        tensors = [None if value is None else value.const_value for value in parts]
        whole = function[-1].inputs[place]
        if None in tensors or whole is None:
            continue
        gaps, values = (tensor.numpy() for tensor in tensors if tensor is not None)
        yield letter, Coded(decoded_shape(whole), gaps, values)


def _directions(layer: str, kind: Any, matrix: str, coded: Coded, subject: str) -> Iterator[MatrixDensity]:
    directions, rows, columns = coded.shape
    names = GATES[kind]
    size, flat = rows // len(names), positions(coded)[coded.values != 0]
    if len(flat) and int(flat.max()) >= directions * rows * columns:
        raise InputRefusedError(f"the gaps of {matrix} of {layer} lead out of it", subject=subject)
    row, column = np.divmod(flat, columns)
    height, width = min(MAP_ROWS // len(names), size), min(MAP_COLUMNS, columns)
    # The rows of a gate are cut into bands of their own, so that no cell is of two gates.
    band = row // size * height + row % size * height // size
    cell = band * width + column * width // columns
    counts = np.bincount(cell, minlength=directions * len(names) * height * width)
    areas = np.outer(_sizes(size, height), _sizes(columns, width))
    shares = counts.reshape(directions, len(names), height, width) / areas
    stored = counts.reshape(directions, len(names), -1).sum(2) / (size * columns)
    for direction in range(directions):
        gates = tuple(
            GateDensity(name, float(stored[direction, gate]), tuple(map(tuple, shares[direction, gate].tolist())))
            for gate, name in enumerate(names)
        )
        yield MatrixDensity(layer, str(kind), matrix, direction, rows, columns, gates)


def _sizes(length: int, cells: int) -> Array:
    """Return how many of a length fall into each cell."""
    return np.bincount(np.arange(length) * cells // length, minlength=cells)
