"""Densities and maps of coded matrices are those of the weights that are stored."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from tests.sparse_rnn.test_kernels import CASES, dense, drawn, made

from sartor.share.density import density_table
from sartor.share.errors import InputRefusedError
from sartor.tools.sparse_rnn.density import densities
from sartor.tools.sparse_rnn.emit import emit
from sartor.tools.sparse_rnn.encode import encode
from sartor.tools.sparse_rnn.find import R, find_layers
from sartor.tools.sparse_rnn.oracle import GATES


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("hidden", [1, 5, 40])
def test_every_stored_weight_is_counted(name: str, hidden: int) -> None:
    case = {**CASES[name], "pattern": "unstructured"}
    model, cell, weights = made(hidden, 33, case)
    found = densities(model, "m.onnx")
    places = {(one.matrix, one.direction) for one in found}
    letters = "WR" if case.get("sparse_input") else "R"
    assert places == {(letter, direction) for letter in letters for direction in range(cell.directions)}
    for one in found:
        whole = (weights.w if one.matrix == "W" else weights.r)[one.direction]
        assert (one.layer, one.kind, one.rows, one.columns) == ("layer", cell.kind, *whole.shape)
        assert [gate.gate for gate in one.gates] == list(GATES[cell.kind])
        assert one.density == pytest.approx((whole != 0).mean())
        for gate, part in zip(one.gates, np.split(whole != 0, len(one.gates)), strict=True):
            assert gate.density == pytest.approx(part.mean())
            rows, columns = len(gate.cells), len(gate.cells[0])
            assert (len(one.gates) * rows <= 8, columns) == (True, min(32, whole.shape[1]))
            bands = np.arange(hidden) * rows // hidden, np.arange(whole.shape[1]) * columns // whole.shape[1]
            for row in range(rows):
                for column in range(columns):
                    cell_of = part[bands[0] == row][:, bands[1] == column]
                    assert gate.cells[row][column] == pytest.approx(cell_of.mean())


def test_a_map_for_people() -> None:
    """A cell of no weights is a dot, a full one a full block; what hides in names can't reach the terminal."""
    arrays = drawn(16, 4, CASES["lstm"])
    arrays["R"][:] = 1
    arrays["R"][0, :8, :8] = 0
    arrays["R"][0, 8, 0] = 0
    model = dense(arrays, CASES["lstm"])
    emit(model, {find_layers(model).layers[0]: {R: encode(arrays["R"], arrays["R"] != 0)}})
    table = density_table(densities(model, "m.onnx"))
    assert table.columns == ("layer", "kind", "matrix", "gate", "density", "map")
    assert table.rows[0] == ("layer", "LSTM", "R0", "i", "74.61%", "·" * 8 + "█" * 8)
    assert table.rows[1] == ("", "", "", "", "", "▇" + "█" * 15)
    assert [row[3:] for row in table.rows[2::2]] == [(gate, "100.00%", "█" * 16) for gate in "ofc"]


def test_gaps_that_lead_outside_are_refused() -> None:
    model, *_ = made(40, 8, CASES["lstm"])
    value = model.graph.initializers["layer_R_gaps"]
    assert value.const_value is not None
    value.const_value = ir.tensor(np.full_like(value.const_value.numpy(), 255), name=value.name)
    with pytest.raises(InputRefusedError, match=r"m\.onnx: the gaps of R of layer lead out of it"):
        densities(model, "m.onnx")


def test_what_is_not_constant_is_left_out() -> None:
    model, *_ = made(40, 8, {**CASES["lstm"], "sparse_input": True})
    (call,) = model.graph
    assert {one.matrix for one in densities(model, "m.onnx")} == {"W", "R"}
    value = call.inputs[R + 1]
    assert value is not None
    del model.graph.initializers[str(value.name)]
    value.const_value = None
    model.graph.inputs.append(value)
    assert [one.matrix for one in densities(model, "m.onnx")] == ["W"]
