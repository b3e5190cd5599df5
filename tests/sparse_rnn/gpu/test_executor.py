"""Sessions of torch whose launches run as Python: models, outputs, fallbacks and errors."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from tests.kits import sparse_rnn_gpu_kit as kit

from sartor.share.errors import InputRefusedError, StalledError, UnavailableError
from sartor.share.runtime import registry
from sartor.share.runtime.device_session import DeviceSession
from sartor.share.runtime.kernel import OUT_OF_RANGE, STALLED, FunctionCall
from sartor.tools.sparse_rnn.emit import DOMAIN
from sartor.tools.sparse_rnn.executor import bind
from sartor.tools.sparse_rnn.gpu.executor import GpuLayer, kernel_for_call, values_for
from sartor.tools.sparse_rnn.gpu.launch import pack, values_of
from sartor.tools.sparse_rnn.gpu.limits import Gpu
from sartor.tools.sparse_rnn.oracle import State, run

CPU = torch.device("cpu")


@pytest.fixture
def machine() -> Iterator[kit.Simulated]:
    made = kit.Simulated()

    def executor(call: FunctionCall) -> GpuLayer | None:
        bound = bind(call)
        return None if bound is None else GpuLayer(call, bound, lambda _: made)

    registry.register_device(DOMAIN, executor)
    yield made
    registry.unregister(DOMAIN)


def opened(model: bytes) -> DeviceSession:
    return DeviceSession(ir.serde.deserialize_model(onnx.load_from_string(model)), CPU, None)


@pytest.mark.parametrize(
    ("kind", "direction", "outputs"),
    [
        ("LSTM", "bidirectional", ("Y", "Y_h", "Y_c")),
        ("LSTM", "reverse", ("", "", "Y_c")),
        ("GRU", "forward", ("Y", "Y_h")),
        ("RNN", "bidirectional", ("", "Y_h")),
    ],
)
def test_sessions(machine: kit.Simulated, kind: str, direction: str, outputs: tuple[str, ...]) -> None:
    model, cell, weights = kit.sparse_model(kind, direction, outputs)
    session = opened(model)
    assert len(session.kernels) == 1
    for batch in (3, 1, 9):
        feeds = kit.fed(kind, cell.directions, batch)
        wanted = run(cell, weights, feeds["X"], feeds["lengths"], State(feeds["h0"], feeds.get("c0")))
        found = session.run(None, feeds)
        for one, other in zip(found, (want for want, name in zip(wanted, outputs, strict=False) if name), strict=True):
            np.testing.assert_allclose(one, other, atol=2e-3)
    assert machine.launches == [(cell.directions, lanes) for lanes in (4, 2, 16)]


def test_no_steps(machine: kit.Simulated) -> None:
    model, cell, _ = kit.sparse_model("LSTM", "forward", ("Y", "Y_h", "Y_c"))
    feeds = kit.fed("LSTM", 1, 2) | {"X": np.zeros((0, 2, kit.INPUTS), np.float32), "lengths": np.zeros(2, np.int32)}
    y, hidden, memory = opened(model).run(None, feeds)
    assert y.shape == (0, 1, 2, kit.HIDDEN)
    assert not hidden.any()
    assert not memory.any()
    assert cell.directions == 1


@pytest.mark.parametrize(
    ("batch", "facts", "reason"),
    [
        (17, Gpu(90, 3, 232_448), "17 samples at a time do not fit on one GPU"),
        (2, Gpu(90, 3, 4_096), "40 units at 37.5% with 2 samples do not fit"),
    ],
)
def test_what_does_not_fit_runs_dense_with_a_warning(
    machine: kit.Simulated, batch: int, facts: Gpu, reason: str
) -> None:
    machine.facts = facts  # type: ignore[misc]
    model, cell, weights = kit.sparse_model("LSTM", "forward", ("Y", "Y_h", "Y_c"))
    session, feeds = opened(model), kit.fed("LSTM", 1, batch)
    with pytest.warns(RuntimeWarning, match=f"no persistent kernel .*{reason}"):
        found = session.run(None, feeds)
    wanted = run(cell, weights, feeds["X"], feeds["lengths"], State(feeds["h0"], feeds["c0"]))
    np.testing.assert_allclose(found[0], wanted[0], atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session.run(None, feeds)
    assert machine.launches == []


def test_without_code_it_runs_dense_with_a_warning(machine: kit.Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_shape: Any) -> None:
        raise UnavailableError("Triton has no Gluon", subject="persistent kernels", remedy="Install triton 3.9")

    monkeypatch.setattr(machine, "load", load)
    model, *_ = kit.sparse_model("GRU", "forward", ("Y",))
    with pytest.warns(
        RuntimeWarning, match=r"no persistent kernel \(Triton has no Gluon\. Install triton 3\.9\); torch runs it"
    ):
        opened(model).run(None, kit.fed("GRU", 1, 2))


def test_a_stalled_kernel_is_an_error(machine: kit.Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    model, *_ = kit.sparse_model("GRU", "forward", ("Y",))
    session = opened(model)

    def stall(_held: Any, call: Any) -> None:
        call.tensors[-1].fill_(STALLED)

    monkeypatch.setattr(machine, "run", stall)
    with pytest.raises(StalledError) as caught:
        session.run(None, kit.fed("GRU", 1, 2))
    assert str(caught.value) == (
        "one: a kernel's programs waited for one another in vain. "
        "See that nothing else keeps the device busy, and run again"
    )
    assert caught.value.exit_code == 69
    monkeypatch.undo()
    session.run(None, kit.fed("GRU", 1, 2))
    session._calls.status.fill_(OUT_OF_RANGE)
    with pytest.raises(InputRefusedError, match="outside the axis"):
        session.check()


def test_obstacles_known_beforehand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[FunctionCall] = []
    registry.register_device(DOMAIN, calls.append)  # type: ignore[arg-type]
    opened(kit.sparse_model("GRU", "forward", ("Y",), np.float32)[0])
    registry.unregister(DOMAIN)
    assert kernel_for_call(calls[0]) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.warns(RuntimeWarning, match="its weights are stored in float32"):
        assert kernel_for_call(calls[0]) is None


def test_states_that_may_be_large_are_stored_in_bfloat16() -> None:
    assert values_for(kit.cell_of("LSTM")) == "fp16"
    assert values_for(kit.cell_of("RNN", activations=("Relu",))) == "bf16"
    assert values_for(kit.cell_of("LSTM", activations=("Sigmoid", "Relu", "Tanh"))) == "fp16"
    assert values_for(kit.cell_of("GRU", activations=("Sigmoid", "Relu"))) == "bf16"


def test_the_arguments_of_a_launch() -> None:
    tensors = [torch.zeros(4), torch.zeros(2)]
    values = values_of(tensors, 7, 3, 10**10)
    pointers = pack(values)
    kinds = [ctypes.c_uint64] * 2 + [ctypes.c_int32] * 2 + [ctypes.c_int64] + [ctypes.c_uint64] * 2
    found = [ctypes.cast(pointer, ctypes.POINTER(kind))[0] for pointer, kind in zip(pointers, kinds, strict=True)]
    assert found == [tensors[0].data_ptr(), tensors[1].data_ptr(), 7, 3, 10**10, 0, 0]
