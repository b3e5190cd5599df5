"""Time whole models, fused by the command and run by sartor.load, against stock onnxruntime on the original.

Five models freshly exported from torch, and magika_v3_3 where SARTOR_DATA has it. Each is first compared with float64
(the torch module; for magika the reference implementation of onnx), and onnxruntime has to give identical results with
the fused file; then both sides are timed call by call in turn.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from _common import Bar, Outcome, finish, parser
from _models import Facts, Job, Sizes, fuse_job, torch_job

from sartor.share.double import run_double
from sartor.share.timing import Race, race
from sartor.tools.fuse.places import PROCESSOR

COLUMNS = ("model", "threads", "groups", "operators", "sartor ms", "onnxruntime ms", "ratio", "ratio of medians")
MAGIKA = "magika"
SIZES: dict[str, Sizes] = {
    "encoder": {"batch": 1, "sequence": 128},
    "resnet": {"batch": 1},
    "mobilenet": {"batch": 1},
    "lstm": {"batch": 1, "sequence": 64},
    "decoder": {"batch": 1, "sequence": 512},
    MAGIKA: {},
}
MEMORY_INTENSIVE = (MAGIKA, "decoder")
NOISE = 0.02
"""How far below 1 a ratio may be and still count as not slower."""


@dataclass(frozen=True)
class Result:
    """One model with one number of threads; sartor is `a` in the race."""

    facts: Facts
    race: Race

    def as_json(self) -> dict[str, Any]:
        """Return the row of the result file; times in microseconds."""
        return {**self.facts.as_json(), "times": self.race.as_json()}

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table: minima, and both ratios."""
        facts = self.facts
        times = (f"{timing.minimum / 1e3:.2f}" for timing in (self.race.a, self.race.b))
        ratios = (f"{self.race.ratio_min:.3f}", f"{self.race.ratio_median:.3f}")
        return (facts.name, str(facts.threads), facts.groups, facts.operators, *times, *ratios)


def jobs(names: Sequence[str], quick: bool, folder: Path) -> list[Job]:
    """Export the models and compute their results in float64."""
    made = [torch_job(name, SIZES[name], quick, folder) for name in names if name != MAGIKA]
    data = os.environ.get("SARTOR_DATA")
    if MAGIKA in names and data:
        made.append(magika_job(Path(data)))
    elif MAGIKA in names:
        print("SARTOR_DATA is not set: without magika", file=sys.stderr)
    if not made:
        sys.exit("no model to measure")
    return made


def magika_job(data: Path) -> Job:
    """Take the classifier as it is, on random bytes."""
    path = data / "classify" / "magika_v3_3.onnx"
    content = np.random.default_rng(3).integers(0, 256, (1, 2048), dtype=np.int32)
    feed = {"bytes": content}
    return Job(MAGIKA, path, SIZES[MAGIKA], feed, run_double(onnx.load(path), feed))


def measure(job: Job, threads: int, seconds: float, folder: Path) -> Result:
    """Fuse, check and time one model; exits when a result is wrong."""
    fused = fuse_job(job, threads, folder)
    timed = race(PROCESSOR.runner(fused.ours, job.feed).call, PROCESSOR.runner(fused.stock, job.feed).call, seconds)
    fused.path.unlink()
    return Result(fused.facts, timed)


def bars(results: list[Result]) -> tuple[Bar, ...]:
    """Return the claims about the ratios of minima."""
    slowest = min(results, key=lambda result: result.race.ratio_min)
    intensive = (result for result in results if result.facts.name in MEMORY_INTENSIVE)
    return (
        Bar(f"slowest: {_title(slowest)}", slowest.race.ratio_min, 1.0 - NOISE, True),
        *(Bar(_title(one), one.race.ratio_min, 1.3, True) for one in intensive),
    )


def _title(result: Result) -> str:
    return f"{result.facts.name}, {result.facts.threads} threads"


def _arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--only", nargs="*", default=list(SIZES), choices=list(SIZES), help="names of models")
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
    settings = {"seconds": seconds, "sizes": SIZES}
    finish(Outcome("fuse_models", settings, COLUMNS, cells, rows, bars(results)), options)


if __name__ == "__main__":
    main()
