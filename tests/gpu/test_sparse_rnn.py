"""Sparse recurrences on a real GPU: all ways to synchronise, sessions, recorded runs, and waits in vain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.kits import sparse_rnn_gpu_kit as kit

import sartor
from sartor.share.runtime.device_session import DeviceSession
from sartor.share.runtime.kernel import STALLED
from sartor.tools.sparse_rnn.gpu import machine as machines
from sartor.tools.sparse_rnn.gpu.cubin import cubin_for
from sartor.tools.sparse_rnn.gpu.launch import Program, values_of
from sartor.tools.sparse_rnn.gpu.limits import Settings
from sartor.tools.sparse_rnn.gpu.operands import prepare, resident
from sartor.tools.sparse_rnn.gpu.plan import plan
from sartor.tools.sparse_rnn.gpu.shape import SYNCS
from sartor.tools.sparse_rnn.oracle import State, run

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

STEPS, INPUTS = 12, 7


def on_device(layer: kit.Layer, settings: Settings, order: Any = "bank") -> tuple[list[Any], list[Any]]:
    """Return Y and Y_h of the launches of a layer, and of the oracle."""
    device, rng, hidden = torch.device("cuda"), np.random.default_rng(1), layer.r.shape[2]
    x = rng.normal(0, 1, (STEPS, settings.batch, INPUTS)).astype(np.float32)
    lengths = rng.integers(0, STEPS + 1, settings.batch).astype(np.int32)
    state = rng.normal(0, 0.5, (2, layer.cell.directions, settings.batch, hidden)).astype(np.float32)
    wanted = run(layer.cell, layer.weights, x, lengths, State(state[0], state[1]))
    machine, found = machines.cuda_machine(device), []
    for launch in plan(kit.source(layer), settings, machine.facts, order=order):
        part = list(launch.directions)
        held = resident(launch.packed, layer.weights.w[part], device)
        given = [torch.from_numpy(one).to(device) for one in (x, lengths, state[0][part], state[1][part])]
        status = torch.zeros(1, dtype=torch.int32, device=device)
        call = prepare(held, *given, status)
        machine.run(held, call)
        assert status.item() == 0
        found.append([call.y.cpu().numpy(), call.hidden.cpu().numpy()])
    joined = [np.concatenate(parts, 1 if i == 0 else 0) for i, parts in enumerate(zip(*found, strict=True))]
    return joined, list(wanted)[:2]


@pytest.mark.parametrize("sync", SYNCS)
@pytest.mark.parametrize("batch", [1, 4, 8, 16])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "GRU inside", "RNN"])
def test_cells(kind: str, batch: int, sync: Any) -> None:
    cell = kit.cell_of(kind[:4].strip(), "bidirectional", linear_before_reset=kind == "GRU inside")
    layer = kit.layer_of(cell, 300, INPUTS, 0.2, "unstructured")
    for found, wanted in zip(*on_device(layer, Settings(batch, "fp16", sync)), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-2)


@pytest.mark.parametrize(("order", "wide"), [("bank", False), ("sorted", True)])
@pytest.mark.parametrize("values", ["fp16", "bf16"])
def test_large_layers_and_the_ablation(order: Any, wide: bool, values: Any) -> None:
    layer = kit.layer_of(kit.cell_of("LSTM"), 2048, INPUTS, 0.25, "balanced:16")
    for found, wanted in zip(*on_device(layer, Settings(4, values, wide=wide), order), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-2 if values == "fp16" else 5e-2)


def test_sessions_and_replays() -> None:
    model, cell, weights = kit.sparse_model("LSTM", "bidirectional", ("Y", "Y_h", "Y_c"))
    session = sartor.load(model, device="cuda")
    assert isinstance(session, DeviceSession)
    for _ in range(5):
        feeds = kit.fed("LSTM", 2, 3)
        wanted = run(cell, weights, feeds["X"], feeds["lengths"], State(feeds["h0"], feeds["c0"]))
        for found, want in zip(session.run(None, feeds), wanted, strict=True):
            np.testing.assert_allclose(found, want, atol=5e-3)
    assert (session.graphs, session.obstacles) == (1, ())


@pytest.mark.parametrize("sync", SYNCS)
def test_a_wait_in_vain_ends(sync: Any) -> None:
    device = torch.device("cuda")
    machine = machines.cuda_machine(device)
    layer = kit.layer_of(kit.cell_of("LSTM"), 300, INPUTS, 0.2, "row")
    (launch,) = plan(kit.source(layer), Settings(4, "fp16", sync), machine.facts)
    shape, status = launch.packed.shape, torch.zeros(1, dtype=torch.int32, device=device)
    held = resident(launch.packed, layer.weights.w, device)
    call = prepare(held, torch.zeros(STEPS, 4, INPUTS, device=device), None, None, None, status)
    program = Program(cubin_for(shape, machine.facts.capability))
    stream = torch.cuda.current_stream(device).cuda_stream
    # The last program is not launched, and a tenth of a second is all that the others wait.
    program.launch(shape.programs - 1, values_of(call.tensors, STEPS, 4, 10**8), stream)
    assert status.item() == STALLED
