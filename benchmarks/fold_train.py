"""Train the tiny preset by `sartor fold-train` and keep the curves: on proteins that are made up, and on real ones.

Real are 2q2k (two chains of one sequence) and 721p, each learned by heart in a run of its own, where `SARTOR_DATA` has
them. A crop is a whole chain, as contacts between distant parts of a chain are seen together or not at all. Time is
that of the steps; judgements, which train nothing, are left out of it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from _common import Bar, Outcome, finish, parser

from sartor.share.threads import default_threads
from sartor.tools.fold.config import make_config
from sartor.tools.fold.options import Options
from sartor.tools.fold.pack import pack
from sartor.tools.fold.plan import Options as PackOptions
from sartor.tools.fold.train import train

COLUMNS = ("run", "chains", "steps", "seconds", "lDDT-Ca", "worst chain")
SECONDS, SYNTHETIC, REAL = 300.0, 0.9, 0.8
QUICK_STEPS = 8
PREFIX = 20
"""Steps whose losses are kept one by one."""


@dataclass(frozen=True)
class Case:
    """A run: the entry that it learns, None for proteins that are made up, and settings other than the preset's."""

    name: str
    entry: str | None
    bar: float
    changes: dict[str, dict[str, Any]]


def real(entry: str, length: int, steps: int) -> Case:
    """Return a run on the chains of an entry, all of a length."""
    changes = {
        "data": {"crop_size": length},
        "loss": {"crop_size": length},
        "training": {"steps": steps},
        "optimiser": {"decay_after": steps * 3 // 5, "decay_every": steps // 15},
    }
    return Case(entry, entry, REAL, changes)


CASES = (Case("synthetic", None, SYNTHETIC, {}), real("2q2k", 70, 1500), real("721p", 166, 700))


@dataclass(frozen=True)
class Result:
    """A run: the lDDT-Ca of chains at its end, the curve, and the losses of the first steps."""

    case: Case
    chains: dict[str, float]
    steps: int
    seconds: float
    curve: list[dict[str, float]]
    prefix: list[float]

    @property
    def mean(self) -> float:
        """The mean lDDT-Ca."""
        return sum(self.chains.values()) / len(self.chains)

    def as_json(self) -> dict[str, Any]:
        """Return the row of the result file."""
        facts = {"run": self.case.name, "steps": self.steps, "seconds": round(self.seconds, 1)}
        lddt = {"lddt_ca": round(self.mean, 4), "chains": {name: round(one, 4) for name, one in self.chains.items()}}
        return {**facts, **lddt, "settings": self.case.changes, "curve": self.curve, "prefix": self.prefix}

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        worst = min(self.chains.values())
        numbers = (str(len(self.chains)), str(self.steps), f"{self.seconds:.0f}")
        return (self.case.name, *numbers, f"{self.mean:.3f}", f"{worst:.3f}")


def measure(case: Case, quick: bool, threads: int) -> Result:
    """Train, and read what the run wrote down."""
    config = make_config("tiny", None, case.changes)
    if quick:
        config = replace(config, training=replace(config.training, steps=QUICK_STEPS))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = None if case.entry is None else str(packed(case.entry, folder))
        run = folder / "run"
        options = Options(
            source=source, judged=None, run=run, weights=None, trunk=None, resume="never", mlperf=False, device="cpu",
            threads=threads,
        )  # fmt: skip
        outcome = train(config, options, None)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    curve, seconds = curve_of(rows)
    prefix = [row["loss"] for row in rows if row["event"] == "step"][:PREFIX]
    return Result(case, outcome.judgement.chains, outcome.steps, seconds, curve, prefix)


def packed(entry: str, folder: Path) -> Path:
    """Pack the chains of an entry that have an alignment."""
    data = Path(os.environ["SARTOR_DATA"]) / "fold"
    structures, alignments = folder / "mmcif", folder / "alignments"
    for place in (structures, alignments):
        place.mkdir()
    (structures / f"{entry}.cif").symlink_to((data / "mmcif" / f"{entry}.cif").resolve())
    for found in (data / "alignments").glob(f"{entry}_*"):
        (alignments / found.name).symlink_to(found.resolve())
    pack(structures, alignments, folder / "shards", PackOptions(), None)
    return folder / "shards"


def curve_of(rows: list[dict[str, Any]]) -> tuple[list[dict[str, float]], float]:
    """Return a point a judgement, means of the steps since the last one, and the seconds of all steps."""
    points, seconds = [], 0.0
    since: list[dict[str, Any]] = []
    for row in rows:
        if row["event"] == "step":
            since.append(row)
            seconds += row["seconds"] + row["waited"]
        elif since:
            means = {name: sum(one["terms"][name] for one in since) / len(since) for name in ("fape", "distogram")}
            point = {"step": row["step"], "seconds": seconds, **means, "lddt_ca": row["lddt_ca"]}
            points.append({name: round(value, 4) for name, value in point.items()})
            since = []
    return points, seconds


def bars_of(results: list[Result]) -> tuple[Bar, ...]:
    """Bound the lDDT-Ca of each run, and the time of the one on proteins that are made up."""
    bars = [Bar(f"lDDT-Ca, {one.case.name}", one.mean, one.case.bar, True) for one in results]
    bars += [Bar("seconds, synthetic", one.seconds, SECONDS, False) for one in results if one.case.entry is None]
    return tuple(bars)


def main() -> None:
    """Take all runs, or those that are asked for."""
    made = parser(__doc__)
    made.add_argument("--only", nargs="+", choices=[case.name for case in CASES], help="take only these runs")
    options = made.parse_args()
    threads = default_threads()
    results = []
    for case in CASES:
        if (options.only and case.name not in options.only) or (case.entry and "SARTOR_DATA" not in os.environ):
            continue
        results.append(measure(case, options.quick, threads))
        print(*results[-1].cells(), file=sys.stderr, flush=True)
    settings = {"preset": "tiny", "threads": threads}
    cells, rows = tuple(one.cells() for one in results), tuple(one.as_json() for one in results)
    finish(Outcome("fold_train", settings, COLUMNS, cells, rows, bars_of(results)), options)


if __name__ == "__main__":
    main()
