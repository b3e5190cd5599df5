"""Time how long a session of a sparse LSTM takes to open, with a pack of its weights and without."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from _common import Bar, Outcome, finish, parser
from onnx import TensorProto, helper, numpy_helper

from sartor.share.runtime import kernels_of, load
from sartor.share.timing import Race, race
from sartor.tools.sparse_rnn.pattern import parse_pattern
from sartor.tools.sparse_rnn.plan import Options
from sartor.tools.sparse_rnn.sparsify import sparsify

COLUMNS = ("hidden", "MiB of model", "MiB of pack", "kernels", "ms with pack", "ms without", "ratio")
DENSITY, INPUTS, STEPS = 0.3, 64, 4
LEAST = {1024: 2.0, 2304: 3.0}
"""How many times faster a session has to open, by hidden units."""


@dataclass(frozen=True)
class Result:
    """Sizes in bytes, kernels (0 where onnxruntime is faster), and the race: above 1 the pack is faster."""

    hidden: int
    model: int
    pack: int
    kernels: int
    opened: Race

    def as_json(self) -> dict[str, Any]:
        """Return the row of the result file."""
        return {**asdict(self), "opened": self.opened.as_json()}

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        sizes = (f"{one / 2**20:.2f}" for one in (self.model, self.pack))
        times = (f"{one.minimum / 1000:.1f}" for one in (self.opened.a, self.opened.b))
        return (str(self.hidden), *sizes, str(self.kernels), *times, f"{self.opened.ratio_min:.2f}")


def write(path: Path, hidden: int) -> None:
    """Write a dense LSTM of random weights."""
    rng = np.random.default_rng(0)
    shapes = {"W": (1, 4 * hidden, INPUTS), "R": (1, 4 * hidden, hidden)}
    tensors = [
        numpy_helper.from_array((rng.normal(0, 1, shape) / np.sqrt(hidden)).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    node = helper.make_node("LSTM", ["X", "W", "R"], ["Y"], hidden_size=hidden, name="lstm")
    x = helper.make_tensor_value_info("X", TensorProto.FLOAT, ["T", "B", INPUTS])
    y = helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["T", 1, "B", hidden])
    graph = helper.make_graph([node], "layer", [x], [y], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def measure(folder: Path, hidden: int, seconds: float) -> Result:
    """Time both ways; exits where they do not give the same bits."""
    dense, sparse, pack = (folder / name for name in ("dense.onnx", "sparse.onnx", "sparse.h5"))
    write(dense, hidden)
    sparsify(str(dense), str(sparse), Options(DENSITY, parse_pattern("balanced:32")), None, None, str(pack))
    sessions = [load(sparse, threads=1, pack=one) for one in (pack, None)]
    x = np.random.default_rng(1).normal(0, 1, (STEPS, 1, INPUTS)).astype(np.float32)
    ours, other = (session.run(None, {"X": x})[0] for session in sessions)
    if not np.array_equal(ours, other):
        sys.exit(f"{hidden} units: with the pack results are others")
    timed = race(lambda: load(sparse, threads=1, pack=pack), lambda: load(sparse, threads=1), seconds)
    kernels = len(kernels_of(sessions[0]))
    return Result(hidden, sparse.stat().st_size, pack.stat().st_size, kernels, timed)


def main() -> None:
    """Measure all sizes."""
    options = parser(__doc__).parse_args()
    hiddens, seconds = ((64,), 0.1) if options.quick else ((512, *LEAST), 10.0)
    with tempfile.TemporaryDirectory() as name:
        results = [measure(Path(name), hidden, seconds) for hidden in hiddens]
    bars = tuple(
        Bar(f"opening {one.hidden} units with a pack", one.opened.ratio_min, LEAST[one.hidden], True)
        for one in results
        if one.hidden in LEAST
    )
    rows = tuple(one.as_json() for one in results)
    settings = {"density": DENSITY, "inputs": INPUTS, "threads": 1}
    finish(Outcome("sparse_rnn_open", settings, COLUMNS, tuple(one.cells() for one in results), rows, bars), options)


if __name__ == "__main__":
    main()
