"""What half of the multiplications cost in accuracy and save in latency: the closed form alone, searched, fine-tuned.

Networks are trained here on real digits (scikit-learn's, MNIST where SARTOR_DATA has it) and on textures. Every row is
one run of `sartor prune`; accuracies are those on images that neither the search nor training has seen, latencies those
of one image on one thread of onnxruntime, call by call in turn with the original.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from _common import Bar, Outcome, finish, parser
from _pruning import images, trained
from models.images import Images

from sartor.tools.prune.plan import Budget, Options, Plan
from sartor.tools.prune.prune import prune

RATIO = 0.5
CASES = {"digits": ("resnet20", "digits"), "mnist": ("resnet20", "mnist"), "wide": ("resnet20_wide", "digits"),
         "textures": ("mobilenet_v1", "textures")}  # fmt: skip
RUNS = {"closed form": (0, 0), "searched": (40, 0), "fine-tuned": (40, 10)}
"""Episodes, and epochs of fine-tuning by distillation."""

ROUND = {"wide": 16}
"""Multiples of channels: 16 is what a register of AVX-512 holds."""

COLUMNS = ("case", "run", "accuracy", "pruned", "MACs", "parameters", "latency", "s")


@dataclass(frozen=True)
class Result:
    """One run on one network."""

    case: str
    run: str
    plan: Plan

    @property
    def lost(self) -> float:
        """The accuracy that is lost."""
        return self.plan.before.scores["test"] - self.plan.after.scores["test"]

    @property
    def faster(self) -> float:
        """The latency before over that after."""
        return self.plan.before.latency_us / self.plan.after.latency_us

    def as_json(self) -> dict[str, Any]:
        """Return the row of the result file."""
        before, after = vars(self.plan.before), vars(self.plan.after)
        counts = {unit.name: [unit.before, unit.after] for unit in self.plan.units}
        return {"case": self.case, "run": self.run, "before": before, "after": after, "units": counts}

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        before, after = self.plan.before, self.plan.after
        return (
            self.case, self.run, f"{before.scores['test']:.4f}", f"{after.scores['test']:.4f}",
            f"{after.macs / before.macs:.1%}", f"{after.parameters / before.parameters:.1%}", f"{self.faster:.2f}x",
            f"{self.plan.seconds:.0f}",
        )  # fmt: skip


def write_data(made: Images, target: Path, most: int | None) -> None:
    """Write images as `sartor prune` reads them, as bytes with attributes."""
    with h5py.File(target, "w") as file:
        for name, part in (("train", made.train), ("val", made.validation), ("test", made.test)):
            file[f"{name}/x"] = part.images[:most, None]
            file[f"{name}/x"].attrs.update(scale=1 / 127.5, mean=1.0)
            file[f"{name}/y"] = part.labels[:most].astype(np.int64)


def measure(case: str, quick: bool) -> list[Result]:
    """Run all that is run on one network."""
    name, source = CASES[case]
    model = trained(name, source, 1 if quick else None)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "images.h5")
        write_data(images(source), data, 64 if quick else None)
        for run, (episodes, epochs) in RUNS.items():
            options = Options(
                Budget("flops", RATIO),
                episodes=2 if quick else episodes,
                finetune=epochs,
                distill=epochs > 0,
                round_to=ROUND.get(case),
            )
            plan = prune(str(model), str(Path(folder, "small.onnx")), str(data), options, None)
            results.append(Result(case, run, plan))
            print(*results[-1].cells(), file=sys.stderr, flush=True)
    return results


def bars_of(results: list[Result]) -> tuple[Bar, ...]:
    """Return what is claimed."""
    tuned = [one for one in results if one.run == "fine-tuned"]
    bars = [Bar(f"{one.case}: accuracy lost, fine-tuned", one.lost, 0.005, False) for one in tuned]
    return (*bars, *(Bar("wide: latency", one.faster, 1.5, True) for one in tuned if one.case == "wide"))


def main() -> None:
    """Measure the cases named, or all for which there are images."""
    made = parser(__doc__)
    made.add_argument("--only", nargs="*", choices=CASES, help="cases")
    options = made.parse_args()
    known = [case for case in CASES if case != "mnist" or "SARTOR_DATA" in os.environ]
    results = [one for case in options.only or known for one in measure(case, options.quick)]
    cells, rows = tuple(one.cells() for one in results), tuple(one.as_json() for one in results)
    bars = () if options.quick else bars_of(results)
    finish(Outcome("prune_quality", {"ratio": RATIO, "runs": RUNS}, COLUMNS, cells, rows, bars), options)


if __name__ == "__main__":
    main()
