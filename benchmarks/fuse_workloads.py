"""Time the workloads of the papers on fusion: fused by sartor, in onnxruntime, in torch and by torch.compile.

Each model is freshly exported from torch, fused by the command and run by sartor.load. Every side is first compared
with float64, and onnxruntime has to give identical results with the fused file; then sartor is timed against each of
the others, call by call in turn. A profile of onnxruntime's sessions tells the time of the memory-intensive operators.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import onnxruntime
import torch
from _common import Bar, Outcome, error, finish, geometric_mean, keep_row, parser, require_close
from _models import Facts, Fused, Job, Sizes, fuse_job, keep_quiet, run_torch, torch_job
from models import make

from sartor.share.runtime import load
from sartor.share.timing import Race, Timing, race
from sartor.tools.fuse.places import PROCESSOR
from sartor.tools.fuse.stock import is_compute

Call = Callable[[], object]
STOCK, EAGER, INDUCTOR = "onnxruntime", "torch", "torch.compile"
RATIOS = (STOCK, EAGER, INDUCTOR)
COLUMNS = ("model", "threads", "groups", "operators", "MiB saved", "memory ms", "sartor ms", *RATIOS, "limit")
SIZES: dict[str, Sizes] = {
    "bert": {"batch": 1, "sequence": 128},
    "transformer": {"batch": 1, "source": 32, "target": 32},
    "dien": {"batch": 128},
    "conformer": {"batch": 1, "time": 512},
    "crnn": {"batch": 6},
    "evoformer": {"sequences": 32, "residues": 64},
    "llama": {"batch": 1, "sequence": 128},
    "unet": {"batch": 1},
    "mobilenet": {"batch": 1},
    "convnext": {"batch": 1},
}
UNROLLED = ("dien", "crnn")
"""Models of very many small operators, where the papers gain most."""

NOISE = 0.02
"""How far below 1 a ratio may be and still count as not slower."""

RUNS, WARM_UP = 20, 3


@dataclass(frozen=True)
class Profile:
    """Microseconds of one run by onnxruntime's own clock, which counts whole ones for each operator."""

    memory: Timing
    compute: Timing


@dataclass(frozen=True)
class Result:
    """One model with one number of threads; sartor is `a` in the races, which are named by the other side."""

    facts: Facts
    before: Profile
    after: Profile
    races: dict[str, Race]
    errors: dict[str, float]

    @property
    def ratio(self) -> float:
        """The minimum of onnxruntime over that of sartor."""
        return self.races[STOCK].ratio_min

    @property
    def limit(self) -> float:
        """How many times faster onnxruntime would be if it had the compute operators alone to run.

        Its whole run is timed without the profiler, which costs a microsecond or two at each of the small operators.
        """
        return self.races[STOCK].b.minimum / self.before.compute.minimum

    @property
    def title(self) -> str:
        """The model and the threads."""
        return f"{self.facts.name}, {self.facts.threads} threads"

    def as_json(self) -> dict[str, Any]:
        """Return the row of the result file; times in microseconds."""
        profiles = {"before": self.before, "after": self.after}
        return {
            **self.facts.as_json(),
            "bytes_saved": self.facts.bytes_saved,
            "memory_us": {name: profile.memory.as_json() for name, profile in profiles.items()},
            "compute_us": {name: profile.compute.as_json() for name, profile in profiles.items()},
            "limit": round(self.limit, 4),
            "errors": self.errors,
            "times": {name: timed.as_json() for name, timed in self.races.items()},
        }

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table: minima in milliseconds, then ratios of minima to the other sides."""
        facts = self.facts
        memory = " -> ".join(f"{one.memory.minimum / 1e3:.2f}" for one in (self.before, self.after))
        ours = f"{self.races[STOCK].a.minimum / 1e3:.2f}"
        ratios = (f"{self.races[side].ratio_min:.3f}" if side in self.races else "-" for side in RATIOS)
        saved = f"{facts.bytes_saved / 2**20:.1f}"
        named = (facts.name, str(facts.threads), facts.groups, facts.operators)
        return (*named, saved, memory, ours, *ratios, f"{self.limit:.2f}")


def measure(job: Job, threads: int, sides: Sequence[str], seconds: float, small: bool) -> Result:
    """Fuse, check, profile and time one model; exits when a result is wrong."""
    with tempfile.TemporaryDirectory() as name:
        fused = fuse_job(job, threads, Path(name))
        before, after = (profile(path, job, threads, Path(name)) for path in (job.path, fused.path))
        others, errors = torch_sides(job, threads, sides, small)
        races = compare(fused, job, others, seconds)
    return Result(fused.facts, before, after, races, errors)


def compare(fused: Fused, job: Job, others: dict[str, Call], seconds: float) -> dict[str, Race]:
    """Time sartor against every other side in turn."""
    ours = PROCESSOR.runner(fused.ours, job.feed).call
    sides = {STOCK: PROCESSOR.runner(fused.stock, job.feed).call, **others}
    return {name: race(ours, side, seconds) for name, side in sides.items()}


def torch_sides(job: Job, threads: int, wanted: Sequence[str], small: bool) -> tuple[dict[str, Call], dict[str, float]]:
    """Return the calls of torch, eager and compiled for exactly these sizes, and their errors; exits on a wrong one."""
    torch.set_num_threads(threads)
    torch.compiler.reset()
    module = make(job.name, small).module
    inputs = [torch.from_numpy(array) for array in job.feed.values()]
    sides = {EAGER: module, INDUCTOR: torch.compile(module, dynamic=False)}
    sides = {name: side for name, side in sides.items() if name in wanted}
    errors = {name: error(run_torch(side, inputs), job.expected) for name, side in sides.items()}
    for name, found in errors.items():
        require_close(f"{job.name} by {name}", found)
    return {name: _call(side, inputs) for name, side in sides.items()}, errors


def _call(module: torch.nn.Module, inputs: list[torch.Tensor]) -> Call:
    return lambda: module(*inputs)


def profile(path: Path, job: Job, threads: int, folder: Path) -> Profile:
    """Run a model, fused or not, under onnxruntime's profiler."""

    def observe(options: onnxruntime.SessionOptions) -> None:
        keep_quiet(options)
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")

    session = load(path, threads=threads, session_options=observe)
    for _ in range(WARM_UP + RUNS):
        session.run(None, job.feed)
    totals = list(_totals(json.loads(Path(session.end_profiling()).read_bytes())))[WARM_UP:]
    memory, compute = (Timing(min(times), median(times)) for times in zip(*totals, strict=True))
    return Profile(memory, compute)


def _totals(events: list[dict[str, Any]]) -> Iterator[tuple[int, int]]:
    """Yield the microseconds of memory-intensive and compute operators of each run; its record follows its nodes."""
    memory = compute = 0
    for event in events:
        if event["name"] == "model_run":
            yield memory, compute
            memory = compute = 0
        elif event["name"].endswith("_kernel_time"):
            if is_compute(event["args"]["op_name"]):
                compute += event["dur"]
            else:
                memory += event["dur"]


def bars(results: list[Result]) -> tuple[Bar, ...]:
    """Return the claims about the ratios of minima to onnxruntime, and about the operators that are left of BERT."""
    slowest = min(results, key=lambda result: result.ratio)
    mean = geometric_mean(result.ratio for result in results)
    return (
        Bar(f"slowest against onnxruntime: {slowest.title}", slowest.ratio, 1.0 - NOISE, True),
        Bar("geometric mean over onnxruntime", mean, 1.3, True),
        *(Bar(one.title, one.ratio, 2.0, True) for one in results if one.facts.name in UNROLLED),
        *(_operators_left(one) for one in results if one.facts.name == "bert"),
    )


def _operators_left(result: Result) -> Bar:
    return Bar(f"non-compute operators left: {result.title}", result.facts.plan["dispatches_after"], 84, False)


def _arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--only", nargs="*", default=list(SIZES), choices=list(SIZES), help="names of models")
    made.add_argument("--threads", nargs="*", type=int, default=[1, 2], help="numbers of threads")
    made.add_argument("--sides", nargs="*", default=list(RATIOS[1:]), choices=RATIOS[1:], help="beside onnxruntime")
    made.add_argument("--seconds", type=float, default=10.0, help="time of one race")
    return made.parse_args()


def main() -> None:
    """Measure all workloads, or those named."""
    options = _arguments()
    torch.set_grad_enabled(False)
    seconds = 0.05 if options.quick else options.seconds
    results = []
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            job = torch_job(name, SIZES[name], options.quick, Path(folder))
            for threads in options.threads:
                results.append(measure(job, threads, options.sides, seconds, options.quick))
                keep_row("fuse_workloads", results[-1].as_json(), options)
                print(*results[-1].cells(), file=sys.stderr, flush=True)
    cells = tuple(result.cells() for result in results)
    rows = tuple(result.as_json() for result in results)
    settings = {"sides": options.sides, "seconds": seconds, "profiled_runs": RUNS, "sizes": SIZES}
    finish(Outcome("fuse_workloads", settings, COLUMNS, cells, rows, bars(results)), options)


if __name__ == "__main__":
    main()
