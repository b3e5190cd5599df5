"""Kernels over drawn sizes, lengths and weights against the float64 oracle, and what results must have in common.

Few forms are drawn from, because each is compiled once, in seconds; everything else of a layer costs nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sparse_rnn.test_kernels import CASES, dense, direct, drawn, feed_of, made

from sartor.tools.sparse_rnn.emit import emit
from sartor.tools.sparse_rnn.encode import encode
from sartor.tools.sparse_rnn.find import R, W, cell_of, find_layers
from sartor.tools.sparse_rnn.kernels.form import this_machine
from sartor.tools.sparse_rnn.oracle import Cell, State, Weights, run

Array = np.ndarray
F = np.float32
FORMS: dict[str, dict[str, Any]] = {
    **CASES,
    "lstm of X alone": {"kind": "LSTM", "absent": ("B", "lengths", "h", "c", "Y_h", "Y_c")},
    "gru of last states": {**CASES["gru of torch"], "absent": ("lengths", "Y")},
}


def by_oracle(cell: Cell, weights: Weights, feed: dict[str, Array], absent: tuple[str, ...]) -> list[Array]:
    """Return the outputs that the layer has."""
    found = run(cell, weights, feed["X"], feed.get("lengths"), State(feed.get("h"), feed.get("c")))
    names = ("Y", "Y_h", "Y_c") if cell.kind == "LSTM" else ("Y", "Y_h")
    return [array for name, array in zip(names, found, strict=False) if name not in absent]


@settings(max_examples=60, deadline=None)
@given(
    form=st.sampled_from(sorted(FORMS)),
    hidden=st.integers(1, 80),
    width=st.integers(1, 40),
    steps=st.integers(1, 9),
    batch=st.integers(1, 9),
    density=st.sampled_from([0.03, 0.3, 0.5, 1.0]) | st.floats(0.01, 1),
    pattern=st.sampled_from(["balanced:32", "balanced:16", "unstructured", "row", "block:16x1"]),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_the_oracle_agrees(
    form: str, hidden: int, width: int, steps: int, batch: int, density: float, pattern: str, seed: int,
    data: st.DataObject,
) -> None:  # fmt: skip
    case = {**FORMS[form], "pattern": pattern}
    absent = case.get("absent", ())
    model, cell, weights = made(hidden, width, case, seed, density)
    feed = feed_of(cell, hidden, width, steps, batch, seed)
    lengths = data.draw(st.lists(st.integers(0, steps), min_size=batch, max_size=batch), "lengths")
    feed["lengths"] = np.array(lengths, np.int32)
    feed = {name: array for name, array in feed.items() if name not in absent}
    found = direct(model, feed, this_machine())
    for got, want in zip(found, by_oracle(cell, weights, feed, absent), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=3e-6)


def test_units_have_no_order() -> None:
    """Units in another order, with their weights, give the same states in that order."""
    size, case = 40, CASES["lstm"]
    order = np.random.default_rng(2).permutation(size)
    rows = np.concatenate([gate * size + order for gate in range(4)])
    arrays = drawn(size, 8, case)
    arrays["R"][np.random.default_rng(3).random(arrays["R"].shape) > 0.3] = 0
    bias = np.concatenate([rows, 4 * size + rows])
    mixed = {"W": arrays["W"][:, rows], "R": arrays["R"][:, rows][..., order], "B": arrays["B"][:, bias]}
    feed = feed_of(cell_of(next(iter(dense(arrays, case).graph)), ""), size, 8, 7, 3)
    fed = {**feed, **{name: np.ascontiguousarray(feed[name][..., order]) for name in "hc"}}
    found = (direct(coded(one, case), given, this_machine()) for one, given in ((arrays, feed), (mixed, fed)))
    for plain, turned in zip(*found, strict=True):
        np.testing.assert_allclose(turned, plain[..., order], rtol=0, atol=1e-6)


def coded(arrays: dict[str, Array], case: dict[str, Any]) -> ir.Model:
    """Make a model of one layer of which every recurrent weight that is not zero is stored."""
    model = dense(arrays, case)
    emit(model, {find_layers(model).layers[0]: {R: encode(arrays["R"], arrays["R"] != 0)}})
    return model


@pytest.mark.parametrize("name", ["lstm", "gru of torch", "float32"])
def test_every_weight_kept_is_the_dense_layer(name: str) -> None:
    """At density 1 a kernel gives what stock onnxruntime gives for the dense node of the stored weights."""
    case = CASES[name]
    arrays = {key: array.astype(np.float16).astype(F) for key, array in drawn(40, 8, case).items()}
    model = dense(arrays, case)
    stock = onnxruntime.InferenceSession(ir.serde.serialize_model(model).SerializeToString())
    (layer,) = find_layers(model).layers
    feed = feed_of(layer.cell, 40, 8, 6, 4)
    whole = {place: np.ones_like(arrays[letter], bool) for place, letter in ((R, "R"), (W, "W"))}
    places = (W, R) if case.get("sparse_input") else (R,)
    values = case.get("values", np.float16)
    emit(model, {layer: {place: encode(arrays["WR"[place - 1]], whole[place], values) for place in places}})
    for got, want in zip(direct(model, feed, this_machine()), stock.run(None, feed), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=4e-6)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_odd_states_stay_with_their_sample(name: str, odd: float) -> None:
    """What is infinite or undefined in the state of a sample changes no bit of the others."""
    model, cell, _ = made(40, 8, CASES[name])
    feed = feed_of(cell, 40, 8, 5, 3)
    feed["lengths"][:] = 5
    clean = direct(model, feed, this_machine())
    feed["h"] = feed["h"].copy()
    feed["h"][:, 1, 3] = odd
    for got, want in zip(direct(model, feed, this_machine()), clean, strict=True):
        np.testing.assert_array_equal(got[..., [0, 2], :], want[..., [0, 2], :])


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_negative_zeros_are_zeros(name: str) -> None:
    """The sign of zeros in inputs and states changes nothing."""
    model, cell, _ = made(40, 8, CASES[name])
    feed = feed_of(cell, 40, 8, 5, 3)
    zeros = {key: array if key == "lengths" else np.zeros_like(array) for key, array in feed.items()}
    signed = {key: array if key == "lengths" else -array for key, array in zeros.items()}
    for got, want in zip(*(direct(model, one, this_machine()) for one in (signed, zeros)), strict=True):
        np.testing.assert_array_equal(got, want)
