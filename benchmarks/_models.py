"""What the benchmarks on whole models share: the model with its inputs and float64 results, fusing it, checking it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from _common import error, require_close
from models import export, make

from sartor.share.artifact import read_model
from sartor.share.inputs import Arrays, random_inputs
from sartor.share.runtime import load, stock_options

Sizes = Mapping[str, int]
"""A size for every named axis of a model."""

QUICK = {"sequence": 16, "source": 12, "target": 10, "sequences": 5, "residues": 8, "time": 50}
"""Sizes of the axes of small variants, where they differ from those of a benchmark."""


@dataclass(frozen=True)
class Job:
    """A model to measure: its file, the sizes of its axes, inputs of these sizes, and what it has to give."""

    name: str
    path: Path
    sizes: Sizes
    feed: Arrays
    expected: Sequence[np.ndarray]


@dataclass(frozen=True)
class Facts:
    """What is known of a fused model before it is timed: the plan as the command reports it, and the error."""

    name: str
    threads: int
    plan: dict[str, Any]
    error: float

    @property
    def kept(self) -> int:
        """The number of groups that became kernels."""
        return sum(group["kept"] for group in self.plan["groups"])

    @property
    def bytes_saved(self) -> int:
        """The bytes between operators that kernels neither write nor read any more; unknown ones count as none."""
        return sum(group["bytes_saved"] or 0 for group in self.plan["groups"] if group["kept"])

    @property
    def groups(self) -> str:
        """The groups as a cell of a table."""
        return f"{self.kept} of {len(self.plan['groups'])}"

    @property
    def operators(self) -> str:
        """The non-compute operators that run, before and after, as a cell of a table."""
        return f"{self.plan['dispatches_before']} -> {self.plan['dispatches_after']}"

    def as_json(self) -> dict[str, Any]:
        """Return these facts for a row of the result file."""
        return {
            "model": self.name,
            "threads": self.threads,
            "groups": len(self.plan["groups"]),
            "kept": self.kept,
            "dispatches_before": self.plan["dispatches_before"],
            "dispatches_after": self.plan["dispatches_after"],
            "left_out": {group["id"]: group["reason"] for group in self.plan["groups"] if not group["kept"]},
            "error": self.error,
        }


@dataclass(frozen=True)
class Fused:
    """A fused model and its original, opened and checked."""

    facts: Facts
    path: Path
    ours: onnxruntime.InferenceSession
    stock: onnxruntime.InferenceSession


def torch_job(name: str, sizes: Sizes, small: bool, folder: Path) -> Job:
    """Export a torch model, or its small variant for smaller inputs; the reference is the module in float64."""
    path = export(name, folder, small)
    if small:
        sizes = {axis: QUICK.get(axis, size) for axis, size in sizes.items()}
    feed = random_inputs(read_model(str(path)).ir, {axis: (size,) for axis, size in sizes.items()}, [3])
    return Job(name, path, sizes, feed, reference(make(name, small).module, feed))


def reference(module: torch.nn.Module, feed: Arrays) -> list[np.ndarray]:
    """Run a module, which becomes one of double precision, in float64."""
    return run_torch(module.double(), [_double(torch.from_numpy(array)) for array in feed.values()])


def _double(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def run_torch(module: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> list[np.ndarray]:
    """Run a module that returns a tensor or several."""
    with torch.no_grad():
        outputs = module(*inputs)
    return [output.numpy() for output in ((outputs,) if isinstance(outputs, torch.Tensor) else outputs)]


def fuse_job(job: Job, threads: int, folder: Path) -> Fused:
    """Fuse a model by the command and check it on both sides; exits when a result is wrong."""
    target, report = folder / f"{job.name}-{threads}.onnx", folder / "report.json"
    _run_fuse(job, threads, target, report)
    ours = load(target, threads=threads, session_options=keep_quiet)
    stock = open_stock(job.path, threads)
    found = error(ours.run(None, job.feed), job.expected)
    require_close(f"{job.name} by sartor.load", found)
    same = zip(open_stock(target, threads).run(None, job.feed), stock.run(None, job.feed), strict=True)
    if not all(np.array_equal(a, b) for a, b in same):
        sys.exit(f"{job.name}: onnxruntime gives other results with the fused file")
    return Fused(Facts(job.name, threads, json.loads(report.read_bytes()), found), target, ours, stock)


def _run_fuse(job: Job, threads: int, target: Path, report: Path) -> None:
    """Run the command; raises CalledProcessError."""
    command = [Path(sys.executable).with_name("sartor"), "fuse", job.path, "-o", target, "--report", report, "-q"]
    sizes = [f"--shape={axis}={size}" for axis, size in job.sizes.items()]
    subprocess.run([*command, f"--threads={threads}", *sizes], check=True)


def open_stock(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Open a model in onnxruntime alone, with all of its optimisations."""
    return onnxruntime.InferenceSession(path, stock_options(threads, keep_quiet), providers=["CPUExecutionProvider"])


def keep_quiet(options: onnxruntime.SessionOptions) -> None:
    """Let the threads of a session rest when it has answered: the other session needs the cores."""
    options.add_session_config_entry("session.force_spinning_stop", "1")
