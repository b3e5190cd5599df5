"""Time whole models, fused by the command and run by sartor.load, against stock onnxruntime on the original.

Five models freshly exported from torch, and magika_v3_3 where SARTOR_DATA has it. Each is first compared with float64
(the torch module; for magika the reference implementation of onnx), and onnxruntime has to give identical results with
the fused file; then both sides are timed call by call in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from _common import Bar, Outcome, error, finish, parser, require_close
from models import MODELS, export, make

from sartor.share.artifact import read_model
from sartor.share.double import run_double
from sartor.share.inputs import Arrays, random_inputs
from sartor.share.runtime import load, stock_options
from sartor.share.timing import Race, race
from sartor.tools.fuse.measure import runner

COLUMNS = ("model", "threads", "groups", "operators", "sartor ms", "onnxruntime ms", "ratio", "ratio of medians")
MAGIKA = "magika"
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "encoder": {"batch": (1,), "sequence": (128,)},
    "resnet": {"batch": (1,)},
    "mobilenet": {"batch": (1,)},
    "lstm": {"batch": (1,), "sequence": (64,)},
    "decoder": {"batch": (1,), "sequence": (512,)},
    MAGIKA: {},
}
QUICK = {"sequence": (16,)}
MEMORY_INTENSIVE = (MAGIKA, "decoder")
NOISE = 0.02
"""How far below 1 a ratio may be and still count as not slower."""


@dataclass(frozen=True)
class Job:
    """A model to measure: its file, the sizes of its axes, inputs of these sizes, and what it has to give."""

    name: str
    path: Path
    shapes: dict[str, tuple[int, ...]]
    feed: Arrays
    expected: Sequence[np.ndarray]


@dataclass(frozen=True)
class Result:
    """One model with one number of threads; sartor is `a` in the race."""

    name: str
    threads: int
    plan: dict[str, Any]
    error: float
    race: Race

    @property
    def kept(self) -> int:
        """The number of groups that became kernels."""
        return sum(group["kept"] for group in self.plan["groups"])

    def as_json(self) -> dict[str, Any]:
        """Return the row of the result file; times in microseconds."""
        return {
            "model": self.name,
            "threads": self.threads,
            "groups": len(self.plan["groups"]),
            "kept": self.kept,
            "dispatches_before": self.plan["dispatches_before"],
            "dispatches_after": self.plan["dispatches_after"],
            "left_out": {group["id"]: group["reason"] for group in self.plan["groups"] if not group["kept"]},
            "error": self.error,
            "times": self.race.as_json(),
        }

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table: minima, and both ratios."""
        operators = f"{self.plan['dispatches_before']} -> {self.plan['dispatches_after']}"
        times = (f"{timing.minimum / 1e3:.2f}" for timing in (self.race.a, self.race.b))
        ratios = (f"{self.race.ratio_min:.3f}", f"{self.race.ratio_median:.3f}")
        groups = f"{self.kept} of {len(self.plan['groups'])}"
        return (self.name, str(self.threads), groups, operators, *times, *ratios)


def jobs(names: Sequence[str], quick: bool, folder: Path) -> list[Job]:
    """Export the models and compute their results in float64."""
    made = [torch_job(name, quick, folder) for name in names if name in MODELS]
    data = os.environ.get("SARTOR_DATA")
    if MAGIKA in names and data:
        made.append(magika_job(Path(data)))
    elif MAGIKA in names:
        print("SARTOR_DATA is not set: without magika", file=sys.stderr)
    if not made:
        sys.exit("no model to measure")
    return made


def torch_job(name: str, quick: bool, folder: Path) -> Job:
    """Export a torch model; the reference is the module in double precision."""
    path = export(name, folder, quick)
    shapes = {axis: QUICK.get(axis, size) if quick else size for axis, size in SHAPES[name].items()}
    feed = random_inputs(read_model(str(path)).ir, shapes, [3])
    module = make(name, quick).module.double()
    with torch.inference_mode():
        output = module(*(_double(array) for array in feed.values()))
    return Job(name, path, shapes, feed, [output.numpy()])


def _double(array: np.ndarray) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    return tensor.double() if tensor.is_floating_point() else tensor


def magika_job(data: Path) -> Job:
    """Take the classifier as it is, on random bytes."""
    path = data / "classify" / "magika_v3_3.onnx"
    content = np.random.default_rng(3).integers(0, 256, (1, 2048), dtype=np.int32)
    feed = {"bytes": content}
    return Job(MAGIKA, path, SHAPES[MAGIKA], feed, run_double(onnx.load(path), feed))


def _session(path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def measure(job: Job, threads: int, seconds: float, folder: Path) -> Result:
    """Fuse, check and time one model; exits when a result is wrong."""
    target, report = folder / f"{job.name}-{threads}.onnx", folder / "report.json"
    run_fuse(job, threads, target, report)
    fused = load(target, threads=threads, session_options=_keep_quiet)
    stock = _session(job.path, _stock_options(threads))
    found = error(fused.run(None, job.feed), job.expected)
    require_close(f"{job.name} by sartor.load", found)
    same = zip(_session(target, _stock_options(threads)).run(None, job.feed), stock.run(None, job.feed), strict=True)
    if not all(np.array_equal(a, b) for a, b in same):
        sys.exit(f"{job.name}: onnxruntime gives other results with the fused file")
    timed = race(runner(fused, job.feed), runner(stock, job.feed), seconds)
    target.unlink()
    return Result(job.name, threads, json.loads(report.read_bytes()), found, timed)


def run_fuse(job: Job, threads: int, target: Path, report: Path) -> None:
    """Run the command; raises CalledProcessError."""
    command = [Path(sys.executable).with_name("sartor"), "fuse", job.path, "-o", target, "--report", report, "-q"]
    sizes = [f"--shape={axis}={','.join(map(str, size))}" for axis, size in job.shapes.items()]
    subprocess.run([*command, f"--threads={threads}", *sizes], check=True)


def _stock_options(threads: int) -> onnxruntime.SessionOptions:
    return stock_options(threads, _keep_quiet)


def _keep_quiet(options: onnxruntime.SessionOptions) -> None:
    """Let the threads of a session rest when it has answered: the other session needs the cores."""
    options.add_session_config_entry("session.force_spinning_stop", "1")


def bars(results: list[Result]) -> tuple[Bar, ...]:
    """Return the claims about the ratios of minima."""
    slowest = min(results, key=lambda result: result.race.ratio_min)
    name = f"slowest: {slowest.name}, {slowest.threads} threads"
    intensive = (result for result in results if result.name in MEMORY_INTENSIVE)
    return (
        Bar(name, slowest.race.ratio_min, 1.0 - NOISE, True),
        *(Bar(f"{one.name}, {one.threads} threads", one.race.ratio_min, 1.3, True) for one in intensive),
    )


def _arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--only", nargs="*", default=list(SHAPES), choices=list(SHAPES), help="names of models")
    made.add_argument("--threads", nargs="*", type=int, default=[1, 2], help="numbers of threads")
    made.add_argument("--seconds", type=float, default=10.0, help="time of one race")
    return made.parse_args()


def main() -> None:
    """Measure all models, or those named."""
    options = _arguments()
    seconds = 0.1 if options.quick else options.seconds
    results = []
    with tempfile.TemporaryDirectory() as name:
        for job in jobs(options.only, options.quick, Path(name)):
            for threads in options.threads:
                results.append(measure(job, threads, seconds, Path(name)))
                print(*results[-1].cells(), file=sys.stderr, flush=True)
    cells = tuple(result.cells() for result in results)
    rows = tuple(result.as_json() for result in results)
    settings = {"seconds": seconds, "shapes": SHAPES}
    finish(Outcome("fuse_models", settings, COLUMNS, cells, rows, bars(results)), options)


if __name__ == "__main__":
    main()
