"""The kernel's own source, run as Python by several programs at a time, against the oracle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.kits import sparse_rnn_gpu_kit as kit

from sartor.share.runtime.kernel import STALLED
from sartor.tools.sparse_rnn.activations import PARAMETERS
from sartor.tools.sparse_rnn.gpu.limits import Gpu, Settings
from sartor.tools.sparse_rnn.gpu.operands import MISSING
from sartor.tools.sparse_rnn.gpu.plan import plan
from sartor.tools.sparse_rnn.gpu.shape import SYNCS
from sartor.tools.sparse_rnn.oracle import State, run

STEPS, INPUTS = 4, 5
TOLERANCE = {"fp16": 2e-3, "bf16": 1.5e-2}
"""Hidden states are rounded to 16 bits on their way to the next step, and errors of a step go on to later ones."""


def outputs(
    layer: kit.Layer, settings: Settings, processors: int, lengths: Any = None, empty: bool = False
) -> tuple[list[Any], list[Any]]:
    """Return Y, Y_h and Y_c of the kernel and of the oracle."""
    rng, hidden = np.random.default_rng(1), layer.r.shape[2]
    x = rng.normal(0, 1, (STEPS, settings.batch, INPUTS)).astype(np.float32)
    state = rng.normal(0, 0.5, (2, layer.cell.directions, settings.batch, hidden)).astype(np.float32)
    given = (None, None) if empty else (state[0], state[1])
    wanted = run(layer.cell, layer.weights, x, lengths, State(*given))
    found: list[Any] = []
    for launch in plan(kit.source(layer), settings, Gpu(90, processors, 232_448)):
        part = list(launch.directions)
        states = [None if one is None else np.ascontiguousarray(one[part]) for one in given]
        call = kit.simulate(
            launch.packed, layer.weights.w[part], x=x, lengths=lengths, hidden=states[0], cell=states[1]
        )
        assert call.tensors[-1].item() == 0
        found.append([one.numpy() for one in (call.y, call.hidden, call.cell)])
    joined = [np.concatenate(parts, 1 if i == 0 else 0) for i, parts in enumerate(zip(*found, strict=True))]
    count = 3 if layer.cell.kind == "LSTM" else 2
    return joined[:count], list(wanted)[:count]


def check(layer: kit.Layer, settings: Settings, processors: int = 3, **options: Any) -> None:
    for found, wanted in zip(*outputs(layer, settings, processors, **options), strict=True):
        np.testing.assert_allclose(found, wanted, atol=TOLERANCE[settings.values])


@pytest.mark.parametrize("sync", SYNCS)
@pytest.mark.parametrize("batch", [1, 4, 7, 16])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "GRU inside", "RNN"])
def test_cells(kind: str, batch: int, sync: Any) -> None:
    cell = kit.cell_of(kind[:4].strip(), linear_before_reset=kind == "GRU inside")
    layer = kit.layer_of(cell, 45, INPUTS, 0.4, "unstructured")
    lengths = np.random.default_rng(2).integers(0, STEPS + 1, batch).astype(np.int32)
    check(layer, Settings(batch, "fp16", sync), lengths=lengths)


@pytest.mark.parametrize("sync", SYNCS)
@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_directions(kind: str, direction: str, sync: Any) -> None:
    layer = kit.layer_of(kit.cell_of(kind, direction), 40, INPUTS, 0.3, "row")
    check(layer, Settings(3, "bf16", sync), 4, lengths=np.array([4, 0, 2], np.int32))


def test_directions_that_differ_run_one_after_the_other() -> None:
    names = ("Sigmoid", "Tanh", "Tanh", "HardSigmoid", "Softsign", "Tanh")
    cell = kit.cell_of("LSTM", "bidirectional", activations=names)
    layer = kit.layer_of(cell, 33, INPUTS, 0.3, "unstructured")
    launches = plan(kit.source(layer), Settings(2, "fp16"), Gpu(90, 4, 232_448))
    assert [launch.directions for launch in launches] == [(0,), (1,)]
    check(layer, Settings(2, "fp16"), 4)


def test_directions_that_do_not_fit_together_run_one_after_the_other() -> None:
    layer = kit.layer_of(kit.cell_of("RNN", "bidirectional"), 64, INPUTS, 0.5, "row")
    gpus = [Gpu(90, 2, shared) for shared in (232_448, 9_216)]
    found = [plan(kit.source(layer), Settings(2, "fp16"), gpu) for gpu in gpus]
    assert [[launch.directions for launch in launches] for launches in found] == [[(0, 1)], [(0,), (1,)]]
    assert [launches[0].packed.shape.programs for launches in found] == [1, 2]


@pytest.mark.parametrize(("pattern", "hidden"), [("balanced:32", 512), ("balanced:16", 256), ("balanced:32", 96)])
@pytest.mark.parametrize("wide", [True, False])
def test_patterns_and_the_ablation(pattern: str, hidden: int, wide: bool) -> None:
    layer = kit.layer_of(kit.cell_of("LSTM"), hidden, INPUTS, 0.1, pattern)
    check(layer, Settings(4, "fp16", wide=wide), 8)


@pytest.mark.parametrize("options", [{"clip": 0.5}, {"input_forget": True}, {"clip": 0.3, "input_forget": True}])
def test_attributes(options: dict[str, Any]) -> None:
    check(kit.layer_of(kit.cell_of("LSTM", **options), 31, INPUTS, 0.5, "unstructured"), Settings(2, "fp16"))


@pytest.mark.parametrize("name", sorted({*PARAMETERS, "relu", "softsign", "softplus", "sigmoid"}))
def test_activations(name: str) -> None:
    layer = kit.layer_of(kit.cell_of("RNN", activations=(name,)), 20, INPUTS, 0.2, "unstructured")
    found, wanted = outputs(layer, Settings(2, "fp16"), 2)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-2, atol=1e-2)


def test_absent_inputs() -> None:
    layer = kit.layer_of(kit.cell_of("LSTM"), 45, INPUTS, 0.4, "unstructured")
    plain = replace(layer, weights=replace(layer.weights, bias=None, peepholes=None))
    check(plain, Settings(2, "fp16"), empty=True)


def test_one_program_is_enough() -> None:
    check(kit.layer_of(kit.cell_of("GRU"), 45, INPUTS, 0.4, "unstructured"), Settings(5, "fp16"), 1)


def test_synchronisations_agree_to_the_bit() -> None:
    layer = kit.layer_of(kit.cell_of("GRU"), 77, INPUTS, 0.4, "unstructured")
    first, *others = (outputs(layer, Settings(4, "fp16", sync), 7)[0] for sync in SYNCS)
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_state_of_minus_zeros_is_not_missing() -> None:
    layer = kit.layer_of(kit.cell_of("RNN", activations=("Affine",)), 32, INPUTS, 0.4, "row")
    weights = replace(layer.weights, w=layer.weights.w * 0, bias=None)
    (launch,) = plan(kit.source(replace(layer, weights=weights)), Settings(4, "fp16"), Gpu(90, 2, 232_448))
    x = np.zeros((STEPS, 4, INPUTS), np.float32)
    call = kit.simulate(launch.packed, weights.w, x=x, hidden=np.full((1, 4, 32), -0.0, np.float32))
    assert call.tensors[-1].item() == 0
    assert (call.y == 0).all()


def test_infinite_states_stay_in_their_sample() -> None:
    layer = kit.layer_of(kit.cell_of("RNN", activations=("Relu",)), 32, INPUTS, 0.3, "unstructured")
    (launch,) = plan(kit.source(layer), Settings(4, "bf16"), Gpu(90, 2, 232_448))
    rng = np.random.default_rng(0)
    hidden, x = np.zeros((1, 4, 32), np.float32), rng.normal(0, 1, (STEPS, 4, INPUTS)).astype(np.float32)
    usual = kit.simulate(launch.packed, layer.weights.w, x=x, hidden=hidden)
    hidden[0, 1] = np.nan
    call = kit.simulate(launch.packed, layer.weights.w, x=x, hidden=hidden)
    np.testing.assert_array_equal(call.y[:, :, [0, 2, 3]], usual.y[:, :, [0, 2, 3]])


@pytest.mark.parametrize("sync", SYNCS)
def test_a_wait_in_vain_ends_and_is_told(sync: Any) -> None:
    layer = kit.layer_of(kit.cell_of("LSTM"), 45, INPUTS, 0.4, "unstructured")
    (launch,) = plan(kit.source(layer), Settings(2, "fp16", sync), Gpu(90, 3, 232_448))
    x = np.zeros((STEPS, 2, INPUTS), np.float32)
    call = kit.prepared(launch.packed, layer.weights.w, x)
    # The last program never runs.
    kit.simulate(launch.packed, layer.weights.w, call, patience=0.2, programs=2)
    assert call.tensors[-1].item() == STALLED


def test_buffers_of_lamport_begin_missing_but_for_the_first() -> None:
    layer = kit.layer_of(kit.cell_of("LSTM"), 45, INPUTS, 0.4, "unstructured")
    (launch,) = plan(kit.source(layer), Settings(2, "fp16"), Gpu(90, 3, 232_448))
    call = kit.prepared(launch.packed, layer.weights.w, np.zeros((STEPS, 2, INPUTS), np.float32))
    exchange = call.tensors[kit.ARGUMENTS.index("exchange")].reshape(3, -1)
    assert (exchange[0] == 0).all()
    assert (exchange[1:] == MISSING).all()
