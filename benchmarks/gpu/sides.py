"""The sides of a race on a GPU, each as one CUDA graph: a fused model, torch as it is, torch.compile."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from sartor.share.lowering.dtypes import to_numpy
from sartor.share.runtime.device_session import DeviceSession
from sartor.share.runtime.replay import CudaRecorder

Module = Callable[..., Any]
SARTOR, EAGER, INDUCTOR = "sartor", "torch", "torch.compile"
_COMPUTE = re.compile(
    r"gemm|gemv|cutlass|cublas|xmma|conv(?!ert)|winograd|fmha|flash|attention|lstm|rnn|triton_(tem|mm)", re.IGNORECASE
)
_GENERATED = re.compile(r"triton_(poi|red|per)_")
"""Kernels of GEMMs and convolutions, and what inductor makes of other operators, whatever else its name tells."""


@dataclass(frozen=True)
class Side:
    """A call that enqueues one run, and where its outputs lie after it."""

    call: Callable[[], object]
    outputs: Callable[[], list[np.ndarray]]


@dataclass(frozen=True)
class Kernels:
    """What one run launches: kernels that are not of a GEMM or a convolution, their microseconds, and all of them."""

    memory: int
    memory_us: float
    total: int
    total_us: float

    def as_json(self) -> dict[str, float]:
        """Return the entry of the result file."""
        return {
            "memory": self.memory,
            "memory_us": round(self.memory_us, 2),
            "total": self.total,
            "total_us": round(self.total_us, 2),
        }


def fused_side(path: Path, inputs: Sequence[torch.Tensor], device: torch.device) -> tuple[Side, DeviceSession]:
    """Open a fused model and record it; without a CUDA device it runs kernel by kernel."""
    session = _session(path, device)
    feeds = {one.name: tensor.to(device) for one, tensor in zip(session.get_inputs(), inputs, strict=True)}
    if device.type != "cuda":
        return _eager(lambda: list(session.run_tensors(feeds).values())), session
    binding = session.bind(feeds)
    return Side(binding.run, lambda: [to_numpy(one) for one in binding.outputs.values()]), session


def _session(path: Path, device: torch.device) -> DeviceSession:
    recorder = CudaRecorder(device) if device.type == "cuda" else None
    return DeviceSession(ir.load(path), device, recorder)


def torch_side(module: Module, inputs: Sequence[torch.Tensor], device: torch.device) -> Side:
    """Record a module or function on inputs that are moved to the device."""
    given = [tensor.to(device) for tensor in inputs]
    run = lambda: _listed(module(*given))  # noqa: E731
    if device.type != "cuda":
        return _eager(run)
    recorder, found = CudaRecorder(device), []
    for _ in range(3):
        recorder.rehearse(run)
    replay = recorder.record(lambda: found.extend(run()))
    return Side(replay, lambda: [to_numpy(one) for one in found])


def _eager(run: Callable[[], list[torch.Tensor]]) -> Side:
    return Side(run, lambda: [to_numpy(one) for one in run()])


def _listed(outputs: Any) -> list[torch.Tensor]:
    return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)


def kernels(side: Side, device: torch.device) -> Kernels | None:
    """Count the kernels of one run by torch's profiler; None without a CUDA device."""
    if device.type != "cuda":
        return None
    side.call()
    torch.cuda.synchronize(device)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        side.call()
        torch.cuda.synchronize(device)
    events = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    launched = [(event.name, event.device_time) for event in events if not event.name.startswith(("Memcpy", "Memset"))]
    memory = [time for name, time in launched if _GENERATED.match(name) or not _COMPUTE.search(name)]
    return Kernels(len(memory), sum(memory), len(launched), sum(time for _, time in launched))
