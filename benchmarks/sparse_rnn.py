"""Time sparse recurrent layers on a processor: our kernels, onnxruntime on the dense layer, and torch's.

Weights are random, pruned and stored as `sartor sparsify-rnn` does it. Each result is first compared with a float64
recurrence of the weights that are stored. Inputs are narrow unless a row says otherwise, so that the recurrent part is
what is timed; all times are of a step.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from _common import Bar, Outcome, finish, geometric_mean, parser
from onnx import TensorProto, helper

from sartor.share.runtime import kernels_of, load, stock_options
from sartor.share.timing import Race, race
from sartor.tools.sparse_rnn.emit import emit
from sartor.tools.sparse_rnn.encode import decode, encode
from sartor.tools.sparse_rnn.find import Layer, R, find_layers
from sartor.tools.sparse_rnn.oracle import GATES, Kind, Weights, run
from sartor.tools.sparse_rnn.pattern import masks, parse_pattern

Array = np.ndarray
COLUMNS = (
    "cell",
    "hidden",
    "inputs",
    "batch",
    "density",
    "pattern",
    "threads",
    "us a step",
    "onnxruntime",
    "torch",
    "error",
    "kernel",
)
STEPS, NARROW = 16, 64
TOLERANCE = 2e-6
"""Of float32 sums against float64, the stored weights being the same."""


@dataclass(frozen=True)
class Case:
    """A layer and how it is run."""

    kind: Kind
    hidden: int
    batch: int
    density: float
    pattern: str = "balanced:32"
    threads: int = 1
    width: int = NARROW
    inside: int = 1
    """GRU's linear_before_reset; 1 is torch's form."""


@dataclass(frozen=True)
class Result:
    """What was measured; a ratio above 1 means that ours is faster. Without a kernel onnxruntime ran the layer."""

    case: Case
    error: float
    kernel: bool
    stock: Race
    torch: Race | None
    alone: Race | None

    def as_json(self) -> dict[str, Any]:
        """Return the row of the result file; times of a whole call of `STEPS` steps in microseconds."""
        others = {"onnxruntime": self.stock, "torch": self.torch, "one thread": self.alone}
        times = {name: timed.as_json() for name, timed in others.items() if timed is not None}
        return {**asdict(self.case), "steps": STEPS, "error": self.error, "kernel": self.kernel, "times": times}

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        case = self.case
        name = case.kind if case.kind != "GRU" or case.inside else "GRU, reset first"
        told = (name, *map(str, (case.hidden, case.width, case.batch, case.density, case.pattern, case.threads)))
        ours = f"{self.stock.a.minimum / STEPS:.1f}"
        beside = f"{self.torch.ratio_min:.2f}x" if self.torch else "-"
        kernel = "yes" if self.kernel else "no"
        return (*told, ours, f"{self.stock.ratio_min:.2f}x", beside, f"{self.error:.1e}", kernel)


CASES = (
    Case("LSTM", 128, 1, 0.3),
    Case("LSTM", 512, 1, 0.3),
    Case("LSTM", 1024, 1, 0.3),
    Case("LSTM", 2304, 1, 0.3),
    Case("LSTM", 1024, 4, 0.3),
    Case("LSTM", 2304, 4, 0.3),
    Case("LSTM", 2304, 1, 0.1),
    Case("LSTM", 2304, 4, 0.1),
    Case("LSTM", 512, 16, 0.3),
    Case("LSTM", 1024, 16, 0.3),
    Case("LSTM", 1024, 64, 0.3),
    Case("LSTM", 1024, 16, 0.1),
    Case("LSTM", 1024, 1, 0.5),
    Case("LSTM", 1024, 1, 0.3, "unstructured"),
    Case("LSTM", 2304, 4, 0.3, "unstructured"),
    Case("LSTM", 2304, 4, 0.1, "unstructured"),
    Case("LSTM", 1024, 16, 0.1, "unstructured"),
    Case("LSTM", 1024, 1, 0.3, width=1024),
    Case("LSTM", 2304, 4, 0.3, width=2304),
    Case("GRU", 512, 1, 0.3),
    Case("GRU", 1024, 1, 0.3),
    Case("GRU", 2304, 1, 0.3),
    Case("GRU", 2304, 4, 0.3),
    Case("GRU", 2304, 4, 0.1),
    Case("GRU", 2304, 1, 0.3, inside=0),
    Case("RNN", 2304, 1, 0.3),
    Case("LSTM", 512, 1, 0.3, threads=2),
    Case("LSTM", 1024, 1, 0.3, threads=2),
    Case("LSTM", 2304, 1, 0.3, threads=2),
    Case("LSTM", 2304, 4, 0.3, threads=2),
)
QUICK = (Case("LSTM", 64, 2, 0.3), Case("GRU", 64, 1, 0.3, threads=2), Case("RNN", 64, 1, 0.3, "unstructured"))

BARS = {(512, 1, 0.3): 1.7, (1024, 1, 0.3): 3.0, (2304, 1, 0.3): 5.0, (2304, 4, 0.3): 3.3, (2304, 4, 0.1): 9.0}
"""Hidden units, batch, density: how many times faster than onnxruntime an LSTM has to be."""

LIKE_LSTM = 0.85
TWO_THREADS, WIDE = 1.6, 1024


def measure(case: Case, seconds: float) -> Result:
    """Make a layer, check it, and time all sides."""
    dense, layer = make(case)
    sparse, weights = prune(dense, layer, case)
    x = np.random.default_rng(1).normal(0, 1, (STEPS, case.batch, case.width)).astype(np.float32)
    feed = {"X": x}
    ours = session_of(sparse, case.threads)
    expected = run(layer.cell, weights, x)[0]
    error = float(np.abs(ours.run(["Y"], feed)[0] - expected).max())
    if error > TOLERANCE:
        sys.exit(f"{case}: error {error:.2e}")
    stock = onnxruntime.InferenceSession(dense, _options(case.threads), providers=["CPUExecutionProvider"])
    sides = {"stock": lambda: stock.run(None, feed)}
    if case.inside:
        sides["torch"] = by_torch(case, layer, x)
    if case.threads > 1:
        alone = session_of(sparse, 1)
        sides["alone"] = lambda: alone.run(None, feed)
    raced = {name: race(lambda: ours.run(None, feed), side, seconds) for name, side in sides.items()}
    return Result(case, error, bool(kernels_of(ours)), raced["stock"], raced.get("torch"), raced.get("alone"))


def make(case: Case) -> tuple[bytes, Layer]:
    """Return a dense model of one layer, and the layer."""
    rng, gates = np.random.default_rng(0), len(GATES[case.kind])
    shapes = {"W": (1, gates * case.hidden, case.width), "R": (1, gates * case.hidden, case.hidden),
              "B": (1, 2 * gates * case.hidden)}  # fmt: skip
    arrays = {
        name: (rng.uniform(-1, 1, shape) / np.sqrt(case.hidden)).astype(np.float32) for name, shape in shapes.items()
    }
    outputs = ["Y", "Y_h", *(["Y_c"] if case.kind == "LSTM" else [])]
    attributes = {"linear_before_reset": case.inside} if case.kind == "GRU" else {}
    node = helper.make_node(
        case.kind, ["X", "W", "R", "B"], outputs, hidden_size=case.hidden, name="layer", **attributes
    )
    state = [1, "B", case.hidden]
    graph = helper.make_graph(
        [node], "one", [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["T", "B", case.width])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["T", *state]),
         *(helper.make_tensor_value_info(name, TensorProto.FLOAT, state) for name in outputs[1:])],
        [helper.make_tensor(name, TensorProto.FLOAT, one.shape, one.tobytes(), raw=True)
         for name, one in arrays.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (layer,) = find_layers(ir.serde.deserialize_model(model)).layers
    return model.SerializeToString(), layer


def prune(dense: bytes, layer: Layer, case: Case) -> tuple[bytes, Weights]:
    """Return the sparse model, and the weights that it holds."""
    model = ir.serde.deserialize_model(onnx.load_from_string(dense))
    (own,) = find_layers(model).layers
    gates, pattern = len(GATES[case.kind]), parse_pattern(case.pattern)
    mask = np.stack(masks(list(own.weights.r), gates, pattern, case.density, "gate"))
    coded = encode(own.weights.r, mask)
    emit(model, {own: {R: coded}})
    held = Weights(layer.weights.w, decode(coded), layer.weights.bias)
    return ir.serde.serialize_model(model).SerializeToString(), held


def by_torch(case: Case, layer: Layer, x: Array) -> Any:
    """Return the call of torch's dense layer of the same sizes."""
    kinds = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU, "RNN": torch.nn.RNN}
    module, given = kinds[case.kind](case.width, case.hidden), torch.from_numpy(x)

    def call() -> object:
        torch.set_num_threads(case.threads)
        with torch.inference_mode():
            return module(given)

    return call


def session_of(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    """Open a session of ours whose threads rest between calls."""
    return load(model, threads=threads, session_options=_rest)


def _options(threads: int) -> onnxruntime.SessionOptions:
    return stock_options(threads, _rest)


def _rest(options: onnxruntime.SessionOptions) -> None:
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")


def bars(results: list[Result]) -> tuple[Bar, ...]:
    """Return the claims."""
    found = []
    for one in results:
        case = one.case
        bound = BARS.get((case.hidden, case.batch, case.density))
        usual = case.pattern == "balanced:32" and case.width == NARROW and case.threads == 1 and case.inside == 1
        if bound is not None and usual and case.kind != "RNN":
            wanted = bound * (LIKE_LSTM if case.kind == "GRU" else 1)
            title = f"{case.kind} {case.hidden}, batch {case.batch}, {case.density:.0%}"
            found.append(Bar(f"{title}: over onnxruntime", one.stock.ratio_min, wanted, True))
            if one.torch is not None:
                found.append(Bar(f"{title}: over torch", one.torch.ratio_min, wanted, True))
        if one.alone is not None and case.hidden >= WIDE:
            title = f"LSTM {case.hidden}, batch {case.batch}: two threads over one"
            found.append(Bar(title, one.alone.ratio_min, TWO_THREADS, True))
    slowest = min(results, key=lambda one: one.stock.ratio_min)
    found.append(Bar(f"slowest against onnxruntime: {slowest.case}", slowest.stock.ratio_min, 1.0, True))
    return tuple(found)


def main() -> None:
    """Measure all cases."""
    options = parser(__doc__).parse_args()
    seconds = 0.05 if options.quick else 2.5
    results = []
    for case in QUICK if options.quick else CASES:
        results.append(measure(case, seconds))
        print(*results[-1].cells(), file=sys.stderr, flush=True)
    settings = {"seconds": seconds, "steps": STEPS, "values": "fp16"}
    mean = geometric_mean(one.stock.ratio_min for one in results)
    rows = tuple(one.as_json() for one in results)
    print(f"geometric mean over onnxruntime {mean:.2f}", file=sys.stderr)
    finish(
        Outcome("sparse_rnn", settings, COLUMNS, tuple(one.cells() for one in results), rows, bars(results)), options
    )


if __name__ == "__main__":
    main()
