"""The workloads on a GPU: fused by sartor, in torch as it is, and by torch.compile, each as one CUDA graph."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from _common import Bar, error, geometric_mean, require_close
from _models import Job, torch_job
from fuse_workloads import SIZES
from models import make

from gpu.clock import Clock, race
from gpu.sides import EAGER, INDUCTOR, SARTOR, Side, fused_side, kernels, torch_side
from sartor.tools.fuse.fuse import fuse
from sartor.tools.fuse.options import Options

COLUMNS = ("model", "kernels", "sartor us", "torch", "torch.compile", "memory kernels", "memory us")


def rows(
    device: torch.device, clock: Clock, seconds: float, quick: bool, only: Sequence[str], sides: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Check and time the workloads, or those named; exits on a wrong result."""
    for name in SIZES:
        if only and name not in only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            job = torch_job(name, SIZES[name], quick, Path(folder))
            yield _measure(job, device, clock, seconds, quick, sides, Path(folder))


def _measure(
    job: Job, device: torch.device, clock: Clock, seconds: float, quick: bool, wanted: Sequence[str], folder: Path
) -> dict[str, Any]:
    sides, functions = _sides(job, device, quick, wanted, folder)
    errors = {}
    for name, side in sides.items():
        side.call()
        errors[name] = error(side.outputs(), job.expected)
        require_close(f"{job.name} {name}", errors[name])
    times = race({name: side.call for name, side in sides.items()}, clock, seconds)
    counted = {name: kernels(side, device) for name, side in sides.items()}
    return {
        "model": job.name,
        "functions": functions,
        "errors": errors,
        "times_us": {name: timing.as_json() for name, timing in times.items()},
        "kernels": {name: found.as_json() for name, found in counted.items() if found is not None},
    }


def _sides(
    job: Job, device: torch.device, quick: bool, wanted: Sequence[str], folder: Path
) -> tuple[dict[str, Side], int]:
    target = folder / "fused.onnx"
    shapes = {axis: (size,) for axis, size in job.sizes.items()}
    fuse(str(job.path), str(target), Options(device="cuda", measure=False, verify=False, shapes=shapes), None)
    inputs = [torch.from_numpy(array) for array in job.feed.values()]
    ours, session = fused_side(target, inputs, device)
    sides = {SARTOR: ours}
    module = make(job.name, quick).module.to(device)
    if EAGER in wanted:
        sides[EAGER] = torch_side(module, inputs, device)
    if INDUCTOR in wanted:
        torch.compiler.reset()
        sides[INDUCTOR] = torch_side(torch.compile(module, dynamic=False), inputs, device)
    return sides, len(session.kernels)


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row of the table: minima, and the memory-intensive kernels of sartor and torch.compile."""
    times, counted = row["times_us"], row["kernels"]
    minima = (f"{times[name]['min']:.0f}" if name in times else "-" for name in (SARTOR, EAGER, INDUCTOR))
    both = [counted[name] for name in (SARTOR, INDUCTOR) if name in counted]
    count, spent = " / ".join(f"{one['memory']}" for one in both), " / ".join(f"{one['memory_us']:.0f}" for one in both)
    return (row["model"], str(row["functions"]), *minima, count, spent)


def bars(found: Sequence[dict[str, Any]]) -> tuple[Bar, ...]:
    """Return the claims about models, against torch.compile with CUDA graphs."""
    raced = [row for row in found if {SARTOR, INDUCTOR} <= row["kernels"].keys()]
    if not raced:
        return ()
    counts, spent, whole = (
        [_ratio(row["kernels"], "memory") for row in raced],
        [1 / _ratio(row["kernels"], "memory_us") for row in raced],
        [row["times_us"][INDUCTOR]["min"] / row["times_us"][SARTOR]["min"] for row in raced],
    )
    return (
        Bar("memory-intensive kernels, of torch.compile's", geometric_mean(counts), 0.4, False),
        Bar("memory-intensive time, times as fast", geometric_mean(spent), 1.2, True),
        Bar("slowest end to end", min(whole), 1.0, True),
    )


def _ratio(counted: dict[str, Any], key: str) -> float:
    return float(counted[SARTOR][key] / counted[INDUCTOR][key])
