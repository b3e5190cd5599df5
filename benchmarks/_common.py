"""What the benchmarks share: options, facts about the machine, bars, tables, dated result files, and checked error."""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import sartor
from sartor.share.artifact import write_bytes
from sartor.share.device import devices
from sartor.share.tables import Table, plain

RESULTS = Path(__file__).with_name("results")
PACKAGES = ("onnx", "onnxruntime", "torch", "triton", "onnxscript", "numba", "llvmlite", "numpy")
CLOSE = 1e-5
"""Largest difference from float64 that a result may have, relative to the largest element."""


@dataclass(frozen=True)
class Bar:
    """A figure and the bound that it has to keep."""

    claim: str
    value: float
    bound: float
    at_least: bool

    @property
    def met(self) -> bool:
        """Tell whether the figure is on the right side."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def as_json(self) -> dict[str, Any]:
        """Return the entry of the result file."""
        return {**asdict(self), "met": self.met}


@dataclass(frozen=True)
class Outcome:
    """What a benchmark found: `rows` as data, `cells` the same for people."""

    name: str
    settings: dict[str, Any]
    columns: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    rows: tuple[dict[str, Any], ...]
    bars: tuple[Bar, ...]


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options that all benchmarks have."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--quick", action="store_true", help="a smoke test in seconds; its figures mean nothing")
    made.add_argument("--check", action="store_true", help="exit with 1 when a bar is not met")
    made.add_argument("--results", type=Path, help=f"folder of the result file; {RESULTS} unless --quick")
    return made


def finish(outcome: Outcome, options: argparse.Namespace) -> None:
    """Print the outcome, keep it in a file, and exit with 1 if --check is given and a bar is not met."""
    print(plain(Table(outcome.name, outcome.columns, outcome.cells)))
    bars = tuple((_verdict(bar), bar.claim, f"{bar.value:.4g}", _bound(bar)) for bar in outcome.bars)
    if bars:
        print("\n" + plain(Table("bars", ("", "claim", "value", "bound"), bars)))
    folder = options.results or (None if options.quick else RESULTS)
    if folder is not None:
        print(f"\nwritten to {_write(outcome, folder)}", file=sys.stderr)
    if options.check and not all(bar.met for bar in outcome.bars):
        sys.exit(1)


def keep_row(name: str, row: dict[str, Any], options: argparse.Namespace) -> None:
    """Add a row to `<name>.jsonl` in the folder of --results, so that a run that is cut off has lost nothing."""
    if options.results is not None:
        options.results.mkdir(parents=True, exist_ok=True)
        with (options.results / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


def _verdict(bar: Bar) -> str:
    return "met" if bar.met else "NOT MET"


def _bound(bar: Bar) -> str:
    return f"{'at least' if bar.at_least else 'at most'} {bar.bound:g}"


def _write(outcome: Outcome, folder: Path) -> Path:
    today = datetime.now(UTC).date().isoformat()
    document = {
        "schema": 1,
        "benchmark": outcome.name,
        "date": today,
        "machine": machine(),
        "settings": outcome.settings,
        "rows": outcome.rows,
        "bars": [bar.as_json() for bar in outcome.bars],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{outcome.name}-{today}.json"
    write_bytes((json.dumps(document, indent=1) + "\n").encode(), str(path))
    return path


def machine() -> dict[str, Any]:
    """Return the processor, its vector extensions, the GPUs, and the versions of all that has a hand in the figures."""
    found = devices()
    cpu = found.cpu
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    return {
        "cpu": cpu.model,
        "cores": len(cpu.affinity),
        "features": list(cpu.features),
        "gpus": [f"{gpu.name}, driver {gpu.driver}" for gpu in found.gpus],
        "memory_gib": round(int(memory.split()[1]) / 2**20, 1),
        "system": platform.platform(),
        "versions": {
            "sartor": sartor.__version__,
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
    }


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean of positive numbers."""
    return math.exp(float(np.mean([math.log(value) for value in values])))


def error(actual: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Return the largest difference relative to the largest element, over pairs of finite arrays of one shape."""
    return max(_error(a, b) for a, b in zip(actual, expected, strict=True))


def _error(actual: np.ndarray, expected: np.ndarray) -> float:
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    difference = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
    return float(difference.max() / np.abs(expected).max())


def require_close(subject: str, found: float) -> None:
    """Exit with a message when an error exceeds the bound, NaN included: no figure for a wrong result."""
    if not found <= CLOSE:
        sys.exit(f"{subject}: the result is off by {found:.3g} of the largest element, more than {CLOSE:g}")
