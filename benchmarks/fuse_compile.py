"""Measure what `sartor fuse` itself costs: seconds with a cold and a warm cache, and memory on a model of 3 GiB.

Seconds are the wall time of the command. Memory is the peak of its anonymous resident memory (RssAnon of
/proc/PID/status, polled): all that it holds beyond mapped files, the interpreter and its libraries' data included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

from _common import Bar, Outcome, finish, parser
from models import export
from models.large import write_large

COLUMNS = ("case", "seconds", "MiB anonymous", "MiB of the model")
POLL_SECONDS = 0.005
WARM_RUNS = 5
GIBIBYTES = 3.0


def time_fuse(source: Path, target: Path, cache: Path) -> tuple[float, int]:
    """Run the command; return its seconds and the peak of its anonymous memory in MiB.

    Raises CalledProcessError.
    """
    command = [Path(sys.executable).with_name("sartor"), "fuse", source, "-o", target, "-q"]
    started = perf_counter()
    with subprocess.Popen(command, env={**os.environ, "SARTOR_CACHE_DIR": str(cache)}) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, anonymous_kib(process.pid))
            sleep(POLL_SECONDS)
    elapsed = perf_counter() - started
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return elapsed, peak >> 10


def anonymous_kib(process: int) -> int:
    """Return the anonymous memory of a process, resident and swapped, in KiB; 0 for one that has just ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except ProcessLookupError:
        return 0
    facts = dict(line.split(":", 1) for line in lines)
    return sum(int(facts[key].split()[0]) for key in ("RssAnon", "VmSwap") if key in facts)


def size_mib(model: Path) -> int:
    """Return the size of a model with its external data in MiB."""
    return sum(path.stat().st_size for path in model.parent.glob(f"{model.stem}*")) >> 20


def row(case: str, seconds: float, memory: int, size: int) -> dict[str, Any]:
    """Return one row of the result file."""
    return {"case": case, "seconds": round(seconds, 2), "anonymous_mib": memory, "model_mib": size}


def cache_rows(name: str, small: bool) -> list[dict[str, Any]]:
    """Fuse a torch model with an empty cache, then some times with what the first run left there (the median counts).

    A single warm run would also pay for the disk that is still busy with what was written before.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        source = export(name, folder, small)
        size = size_mib(source)
        cold, *warm = (time_fuse(source, folder / "fused.onnx", folder / "cache") for _ in range(1 + WARM_RUNS))
        seconds = [one[0] for one in warm]
        usual = row(f"{name}, warm", median(seconds), max(one[1] for one in warm), size)
        return [row(f"{name}, cold", *cold, size), {**usual, "fastest_seconds": round(min(seconds), 2)}]


def large_row(gibibytes: float) -> dict[str, Any]:
    """Fuse a model with large weights in an external file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = write_large(folder / "large.onnx", gibibytes)
        size = size_mib(source)
        return row("large, cold", *time_fuse(source, folder / "fused.onnx", folder / "cache"), size)


def bars(rows: list[dict[str, Any]]) -> tuple[Bar, ...]:
    """Return the claims about time and memory."""
    cold, warm, large = rows
    return (
        Bar("seconds with a cold cache", cold["seconds"], 20, False),
        Bar("seconds with a warm cache", warm["seconds"], 3, False),
        Bar("MiB beyond the mapped file", large["anonymous_mib"], 1024, False),
    )


def _arguments() -> argparse.Namespace:
    return parser(__doc__).parse_args()


def main() -> None:
    """Measure the 12-layer encoder and the model of 3 GiB."""
    options = _arguments()
    gibibytes = GIBIBYTES / 64 if options.quick else GIBIBYTES
    rows = [*cache_rows("resnet" if options.quick else "encoder", options.quick), large_row(gibibytes)]
    cells = tuple(tuple(str(value) for value in list(one.values())[: len(COLUMNS)]) for one in rows)
    settings = {"gibibytes": gibibytes, "poll_seconds": POLL_SECONDS}
    finish(Outcome("fuse_compile", settings, COLUMNS, cells, tuple(rows), bars(rows)), options)


if __name__ == "__main__":
    main()
