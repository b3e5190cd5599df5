"""Make small models, prune one, make the recurrent one sparse, fuse all, and compare speeds with stock onnxruntime."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHAPES = {
    "encoder": "ids=8,128",
    "cnn": "image=8,3,32,32",
    "pruned": "image=8,3,32,32",
    "sparse": "features=64,4,32",
}
HEADINGS = ("model", "groups", "dispatches", "largest difference", "onnxruntime", "sartor", "ratio")


@dataclass(frozen=True)
class Row:
    """What the table says about one model; times in microseconds, the median of all runs."""

    model: str
    groups: int
    dispatches_before: int
    dispatches_after: int
    difference: float
    stock_us: float
    sartor_us: float
    ratio: float

    def cells(self) -> tuple[str, ...]:
        """Return the texts of the table's cells."""
        dispatches = f"{self.dispatches_before} -> {self.dispatches_after}"
        times = (f"{self.stock_us:.1f} us", f"{self.sartor_us:.1f} us", f"{self.ratio:.2f}x")
        return (self.model, str(self.groups), dispatches, f"{self.difference:.1e}", *times)


def sartor(*arguments: str | Path) -> None:
    """Run a command and show its messages; raises CalledProcessError when it fails."""
    print("$ sartor", *arguments, file=sys.stderr, flush=True)
    subprocess.run([Path(sys.executable).with_name("sartor"), *arguments], check=True)


def ask(*arguments: str | Path) -> Any:
    """Run a command and return its JSON document; raises CalledProcessError when it fails."""
    print("$ sartor", *arguments, "--json", file=sys.stderr, flush=True)
    command = [Path(sys.executable).with_name("sartor"), *arguments, "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def measure(folder: Path, name: str) -> Row:
    """Fuse, verify and time one model."""
    model, fused = folder / f"{name}.onnx", folder / f"{name}.fused.onnx"
    # Decisions are measured at the sizes that the table shows.
    plan = ask("fuse", model, "--dry-run", "--shape", SHAPES[name])
    sartor("fuse", model, "-o", fused, "--shape", SHAPES[name])
    outputs = ask("verify", fused, "--against", model)["outputs"]
    times = ask("bench", fused, "--against", model, "--shape", SHAPES[name])
    return Row(
        model=name,
        groups=sum(group["kept"] for group in plan["groups"]),
        dispatches_before=plan["dispatches_before"],
        dispatches_after=plan["dispatches_after"],
        difference=max(output["max_abs"] for output in outputs),
        stock_us=times["b_us"]["median"],
        sartor_us=times["a_us"]["median"],
        ratio=times["ratio_median"],
    )


def table(rows: list[Row]) -> str:
    """Return the rows below their headings, each column as wide as its widest cell."""
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def main() -> None:
    """Run the demonstration in the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    subprocess.run([sys.executable, Path(__file__).with_name("make_models.py"), folder], check=True)
    try:
        pruned = folder / "pruned.onnx"
        sartor("prune", folder / "cnn.onnx", "--data", folder / "images.h5", "--flops", "0.5", "-o", pruned)
        sparse = folder / "sparse.onnx"
        sartor("sparsify-rnn", folder / "recurrent.onnx", "--density", "0.3", "-o", sparse)
        print(table([measure(folder, name) for name in SHAPES]))
    except subprocess.CalledProcessError as error:
        # The command has already said why.
        sys.exit(error.returncode)


if __name__ == "__main__":
    main()
