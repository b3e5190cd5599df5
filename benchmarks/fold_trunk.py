"""Time the Evoformer of a trained model in `sartor.load`, fused, against the plain file in onnxruntime.

The model is that of a few steps of `sartor fold-train --synthetic`; times do not depend on how well it is trained.
Outputs of both are compared before anything is timed.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from _common import Bar, Outcome, finish, geometric_mean, parser

from sartor.share.runtime import kernels_of, load, stock_options
from sartor.share.timing import Race, race
from sartor.tools.fold.config import make_config
from sartor.tools.fold.options import Options
from sartor.tools.fold.train import train
from sartor.tools.fuse.fuse import fuse
from sartor.tools.fuse.options import Options as FuseOptions

COLUMNS = ("rows", "residues", "threads", "operators", "kernels", "ms", "onnxruntime", "error")
SIZES = ((8, 32), (32, 96))
QUICK = ((4, 16),)
TOLERANCE = 1e-5
"""Of the largest element of an output."""


@dataclass(frozen=True)
class Result:
    """One size: non-compute operators of the plain and of the fused file, kernels, the race and the error."""

    rows: int
    residues: int
    threads: int
    before: int | None
    after: int | None
    kernels: int
    times: Race
    error: float

    def as_json(self) -> dict[str, Any]:
        """Return the row of the result file."""
        facts = {"rows": self.rows, "residues": self.residues, "threads": self.threads, "kernels": self.kernels}
        counts = {"dispatches_before": self.before, "dispatches_after": self.after, "error": self.error}
        return {**facts, **counts, "times": {"onnxruntime": self.times.as_json()}}

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        sizes = (str(self.rows), str(self.residues), str(self.threads), f"{self.before} to {self.after}")
        ours = f"{self.times.a.minimum / 1e3:.2f}"
        return (*sizes, str(self.kernels), ours, f"{self.times.ratio_min:.2f}x", f"{self.error:.1e}")


def export(folder: Path) -> Path:
    """Train for two steps and export the trunk."""
    config = make_config("tiny", None, {})
    config = replace(config, training=replace(config.training, steps=2))
    trunk = folder / "trunk.onnx"
    options = Options(
        source=None, judged=None, run=folder / "run", weights=None, trunk=str(trunk), resume="never", mlperf=False,
        device="cpu", threads=1,
    )  # fmt: skip
    train(config, options, None)
    return trunk


def inputs(model: onnxruntime.InferenceSession, rows: int, residues: int) -> dict[str, np.ndarray]:
    """Return random representations and masks without gaps."""
    random, sizes = np.random.default_rng(0), {"rows": rows, "residues": residues}
    feed = {}
    for one in model.get_inputs():
        shape = [sizes.get(size, size) for size in one.shape]
        whole = one.name.endswith("mask")
        feed[one.name] = np.ones(shape, np.float32) if whole else random.normal(0, 1, shape).astype(np.float32)
    return feed


def measure(plain: Path, folder: Path, size: tuple[int, int], threads: int, seconds: float) -> Result:
    """Fuse for a size, compare, and time."""
    rows, residues = size
    fused = folder / "fused.onnx"
    shapes = {"rows": (rows,), "residues": (residues,)}
    plan = fuse(str(plain), str(fused), FuseOptions(threads=threads, shapes=shapes), None)
    stock = onnxruntime.InferenceSession(plain, stock_options(threads), providers=["CPUExecutionProvider"])
    ours, feed = load(fused, threads=threads), inputs(stock, rows, residues)
    pairs = list(zip(ours.run(None, feed), stock.run(None, feed), strict=True))
    error = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)
    if not error <= TOLERANCE:
        sys.exit(f"{rows} rows, {residues} residues: error {error:.1e}")
    times = race(lambda: ours.run(None, feed), lambda: stock.run(None, feed), seconds)
    kernels = len(kernels_of(ours))
    return Result(rows, residues, threads, plan.dispatches_before, plan.dispatches_after, kernels, times, error)


def main() -> None:
    """Measure all sizes on one thread and on two."""
    options = parser(__doc__).parse_args()
    sizes, seconds = (QUICK, 0.1) if options.quick else (SIZES, 5.0)
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = export(folder)
        for size in sizes:
            for threads in (1, 2):
                results.append(measure(plain, folder, size, threads, seconds))
                print(*results[-1].cells(), file=sys.stderr, flush=True)
    bars = (
        Bar("slowest over onnxruntime", min(one.times.ratio_min for one in results), 0.98, True),
        Bar("geometric mean over onnxruntime", geometric_mean(one.times.ratio_min for one in results), 1.0, True),
    )
    cells, rows = tuple(one.cells() for one in results), tuple(one.as_json() for one in results)
    finish(Outcome("fold_trunk", {"preset": "tiny", "seconds": seconds}, COLUMNS, cells, rows, bars), options)


if __name__ == "__main__":
    main()
