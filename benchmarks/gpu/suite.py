"""All measurements on a GPU: the tests that need one, groups, workloads, recurrences, each checked before it is timed.

Rows are kept as they come, in `gpu_<part>.jsonl`, so that a run that is cut off has lost nothing; a part that ends
writes the dated result file as other benchmarks do. `--device cpu` with TRITON_INTERPRET=1 tries it without a GPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from _common import Outcome, finish, keep_row, parser  # noqa: E402

from gpu import groups, sparse_rnn, workloads  # noqa: E402
from gpu.clock import clock_for  # noqa: E402
from gpu.sides import EAGER, INDUCTOR  # noqa: E402

PARTS = ("tests", "groups", "workloads", "sparse_rnn")


def run_tests() -> None:
    """Run the tests that need a GPU; exits with 1 where one fails."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "tests/gpu"], cwd=ROOT)
    if done.returncode:
        sys.exit(1)


def kept(part: str, found: Iterator[dict[str, Any]], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Collect rows; each is kept and shown at once."""
    collected = []
    for row in found:
        collected.append(row)
        keep_row(f"gpu_{part}", row, options)
        print(json.dumps(row), file=sys.stderr, flush=True)
    return collected


def measure(part: str, options: argparse.Namespace) -> None:
    """Measure one part and write its result file."""
    device = torch.device(options.device)
    clock, seconds = clock_for(device), 0.01 if options.quick else options.seconds
    if part == "groups":
        found = kept(part, groups.rows(device, clock, seconds, options.quick, options.only), options)
        columns, cells, bars = groups.COLUMNS, groups.cells, groups.bars(found)
    elif part == "sparse_rnn":
        found = kept(part, sparse_rnn.rows(device, clock, seconds, options.quick, options.only), options)
        columns, cells, bars = sparse_rnn.COLUMNS, sparse_rnn.cells, sparse_rnn.bars(found)
    else:
        rows = workloads.rows(device, clock, seconds, options.quick, options.only, options.sides)
        found = kept(part, rows, options)
        columns, cells, bars = workloads.COLUMNS, workloads.cells, workloads.bars(found)
    settings = {"device": options.device, "seconds": seconds, "sides": options.sides}
    finish(Outcome(f"gpu_{part}", settings, columns, tuple(map(cells, found)), tuple(found), bars), options)


def main() -> None:
    """Run the parts that are asked for."""
    made = parser(__doc__)
    made.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu")
    made.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    made.add_argument("--only", nargs="*", default=[], help="names of groups, models or cases")
    made.add_argument("--sides", nargs="*", default=[EAGER, INDUCTOR], choices=[EAGER, INDUCTOR], help="beside sartor")
    made.add_argument("--seconds", type=float, default=1.0, help="time of one race")
    options = made.parse_args()
    torch.set_grad_enabled(False)
    for part in options.parts:
        if part == "tests":
            run_tests()
        else:
            measure(part, options)


if __name__ == "__main__":
    main()
