"""Sparse recurrences on a GPU against cuDNN, a dense product a step and cuSPARSE, with and without CUDA graphs.

All layers are LSTMs without peepholes, forward, with few inputs, so that the recurrence is what is timed; the others
run in float16, as ours does. Rows have equally many weights, so that a density is what it says. Every side of every
case is compared with float64 before anything is timed. Then: what each of the three optimisations brings, and the
largest model.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from _common import Bar

from gpu.clock import Clock, race
from gpu.sides import Side
from sartor.share.errors import InputRefusedError
from sartor.share.lowering.dtypes import to_numpy
from sartor.share.runtime.replay import CudaRecorder
from sartor.tools.sparse_rnn.activations import Activation
from sartor.tools.sparse_rnn.encode import Coded, decode, encode
from sartor.tools.sparse_rnn.gpu.layout import entries_of
from sartor.tools.sparse_rnn.gpu.limits import KNOWN, Gpu, Settings, largest_hidden
from sartor.tools.sparse_rnn.gpu.machine import cuda_machine
from sartor.tools.sparse_rnn.gpu.operands import prepare, resident
from sartor.tools.sparse_rnn.gpu.plan import Source, plan
from sartor.tools.sparse_rnn.gpu.stack import Stack
from sartor.tools.sparse_rnn.oracle import Cell
from sartor.tools.sparse_rnn.pattern import masks, parse_pattern

COLUMNS = ("case", "hidden", "batch", "density", "us a step", "cuDNN", "GEMM", "cuSPARSE", "over the best")
OURS, STACK, CUDNN, GEMM, CUSPARSE = "sartor", "sartor, layers at the same time", "cuDNN", "GEMM a step", "cuSPARSE"
GRAPH = ", graph"
Layer = Callable[[torch.Tensor], torch.Tensor]
INPUTS, STEPS, QUICK_STEPS = 64, 128, 3
TOLERANCE = 1e-2
"""Of hidden states, which are below 1, in float16 after many steps, against float64."""

DENSE_BYTES = 42.5e6
"""What a dense persistent kernel could hold on 132 multiprocessors, registers and shared memory, by estimate."""

HEADLINE = (2304, 4)
BARS = {0.3: 3.0, 0.1: 6.0}
LARGER, LARGER_BAR, LARGER_DENSITY = 5.0, 2.0, 0.05


@dataclass(frozen=True)
class Case:
    """A layer, and what is turned off of our kernel."""

    hidden: int
    batch: int
    density: float
    pattern: str = "row"
    settings: tuple[tuple[str, Any], ...] = ()
    order: str = "bank"
    name: str = "sweep"
    layers: int = 1


@dataclass(frozen=True)
class Weights:
    """Weights of a case: w [1, 4 H, I] and the coded r [1, 4 H, H]."""

    w: np.ndarray
    r: Coded


def larger_hidden() -> int:
    """Return the units of a model `LARGER` times as large as the largest dense one, a multiple of 32."""
    return math.ceil(math.sqrt(LARGER * DENSE_BYTES / 8) / 32) * 32


def cases(quick: bool) -> list[Case]:
    """Return the sweep, the ablation, and the larger model."""
    if quick:
        return [Case(64, 2, 0.3, layers=2)]
    sizes = ((h, b) for h in (1152, 1792, 2304, 2816, 4032, 5632) for b in (1, 4, 8))
    sweep = [Case(*size, density) for size in sizes for density in (0.3, 0.1, 0.05, 0.01)]
    ablation = []
    for density in (0.3, 0.1):
        base = Case(*HEADLINE, density)
        ablation += [
            replace(base, name="without wide loads", settings=(("wide", False),)),
            replace(base, name="without order by banks", order="sorted"),
            replace(base, name="flags, not Lamport", settings=(("sync", "flags"),)),
            replace(base, name="a counter, not Lamport", settings=(("sync", "counter"),)),
            replace(base, name="without all three", settings=(("wide", False), ("sync", "counter")), order="sorted"),
        ]
    balanced = [Case(*HEADLINE, density, "balanced:16", name="balanced") for density in (0.3, 0.1)]
    stack = [Case(1152, 4, 0.1, name="layers at the same time", layers=layers) for layers in (2, 4)]
    return [*sweep, *balanced, *ablation, *stack, Case(larger_hidden(), HEADLINE[1], LARGER_DENSITY, name="larger")]


def make(case: Case, layer: int) -> Weights:
    """Return random weights of a layer, pruned."""
    rng, inputs = np.random.default_rng(layer), case.hidden if layer else INPUTS
    shape = (4 * case.hidden, case.hidden)
    r = (rng.uniform(-1, 1, shape) / np.sqrt(max(case.density * case.hidden, 1))).astype(np.float32)
    (mask,) = masks([r], 4, parse_pattern(case.pattern), case.density, "gate")
    w = (rng.uniform(-1, 1, (1, 4 * case.hidden, inputs)) / np.sqrt(inputs)).astype(np.float32)
    return Weights(w, encode(r[None], mask[None]))


def lstm(product: Callable[[torch.Tensor], torch.Tensor], projected: torch.Tensor, hidden: int) -> torch.Tensor:
    """Run an LSTM over projected inputs [T, B, 4 H]; `product` multiplies a state [B, H] with R."""
    h = c = torch.zeros(projected.shape[1], hidden, dtype=projected.dtype, device=projected.device)
    found = []
    for step in projected:
        i, o, f, candidate = (step + product(h)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(candidate)
        h = torch.sigmoid(o) * torch.tanh(c)
        found.append(h)
    return torch.stack(found)


def reference(weights: Weights, x: torch.Tensor) -> torch.Tensor:
    """Return hidden states [T, B, H] in float64."""
    w, r = (torch.from_numpy(one[0]).to(x.device).double() for one in (weights.w, decode(weights.r)))
    return lstm(lambda h: h @ r.T, x @ w.T, r.shape[1])


def by_cudnn(weights: Weights, device: torch.device) -> Layer:
    """Return torch's layer in float16, its gates in torch's order."""
    hidden = weights.r.shape[2]
    module = torch.nn.LSTM(weights.w.shape[2], hidden, bias=False, device=device, dtype=half(device))
    with torch.no_grad():
        for target, source in ((module.weight_ih_l0, weights.w[0]), (module.weight_hh_l0, decode(weights.r)[0])):
            gates = source.reshape(4, hidden, -1)[[0, 2, 3, 1]].reshape(4 * hidden, -1)
            target.copy_(torch.from_numpy(np.ascontiguousarray(gates)))
    module.flatten_parameters()
    return lambda x: module(x.to(half(device)))[0]


def by_products(weights: Weights, device: torch.device, sparse: bool) -> Layer:
    """Return a loop over steps with a dense product, or with torch's sparse one (cuSPARSE)."""
    w, r = (torch.from_numpy(one[0]).to(device).to(half(device)) for one in (weights.w, decode(weights.r)))
    hidden, turned = r.shape[1], r.T.contiguous()
    if not sparse:
        return lambda x: lstm(lambda h: h @ turned, x.to(half(device)) @ w.T, hidden)
    rows = r.to_sparse_csr()
    return lambda x: lstm(lambda h: (rows @ h.T.contiguous()).T, x.to(half(device)) @ w.T, hidden)


def half(device: torch.device) -> torch.dtype:
    """Return float16, float32 where there is no GPU."""
    return torch.float16 if device.type == "cuda" else torch.float32


def source_of(weights: Weights) -> Source:
    """Return what our kernel is packed from."""
    cell = Cell("LSTM", "forward", (Activation("sigmoid"), Activation("tanh"), Activation("tanh")))
    return Source("layer", cell, entries_of(weights.r, 4), None, None)


def at_the_same_time(case: Case, layers: Sequence[Weights], device: torch.device) -> Layer:
    """Return our layers side by side; raises InputRefusedError where they do not fit so."""
    status = torch.zeros(1, dtype=torch.int32, device=device)
    sources, inputs = [source_of(one) for one in layers], [one.w for one in layers]
    stack = Stack(sources, inputs, Settings(case.batch, "fp16"), cuda_machine(device), device)
    return lambda x: stack.run(x, status)


def by_us(case: Case, weights: Weights, device: torch.device) -> Layer:
    """Return our launch with everything that a call needs; raises InputRefusedError where it does not fit."""
    machine = cuda_machine(device)
    settings = replace(Settings(case.batch, "fp16"), **dict(case.settings))
    source = source_of(weights)
    order: Any = case.order
    (launch,) = plan(source, settings, machine.facts, order=order)
    held, status = resident(launch.packed, weights.w, device), torch.zeros(1, dtype=torch.int32, device=device)
    machine.load(launch.packed.shape)

    def run(x: torch.Tensor) -> torch.Tensor:
        call = prepare(held, x, None, None, None, status)
        machine.run(held, call)
        return call.y[:, 0]

    return run


def sides_of(case: Case, device: torch.device, steps: int) -> tuple[dict[str, Side], np.ndarray, str]:
    """Return what is timed, what it has to compute, and why ours is not among it, or nothing."""
    layers = [make(case, layer) for layer in range(case.layers)]
    x = torch.randn(steps, case.batch, INPUTS, generator=torch.Generator().manual_seed(1)).to(device)
    runs: dict[str, Callable[[], torch.Tensor]] = {}
    refused = "" if device.type == "cuda" else "no GPU"
    if not refused:
        try:
            runs[OURS] = in_turn([by_us(case, one, device) for one in layers], x)
            if case.layers > 1:
                runs[STACK] = in_turn([at_the_same_time(case, layers, device)], x)
        except InputRefusedError as error:
            refused = str(error)
    runs[CUDNN] = in_turn([by_cudnn(one, device) for one in layers], x)
    for name, sparse in ((GEMM, False), (CUSPARSE, True)):
        runs[name] = in_turn([by_products(one, device, sparse) for one in layers], x)
    sides = {name: _eager(run) for name, run in runs.items()}
    if device.type == "cuda":
        sides |= _recorded(runs, device)
    wanted = x.double()
    for one in layers:
        wanted = reference(one, wanted)
    return sides, to_numpy(wanted), refused


def in_turn(layers: Sequence[Layer], x: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Return what runs layers one after the other."""

    def run() -> torch.Tensor:
        found = x
        for layer in layers:
            found = layer(found)
        return found

    return run


def _eager(run: Callable[[], torch.Tensor]) -> Side:
    return Side(run, lambda: [to_numpy(run())])


def _recorded(runs: dict[str, Callable[[], torch.Tensor]], device: torch.device) -> dict[str, Side]:
    """Record what can be recorded as a CUDA graph; the rest is told and left out."""
    found = {}
    for name, run in runs.items():
        recorder, kept = CudaRecorder(device), []
        try:
            for _ in range(3):
                recorder.rehearse(lambda run=run: run())  # type: ignore[misc]
            replay = recorder.record(lambda run=run, kept=kept: kept.append(run()))  # type: ignore[misc]
        except RuntimeError as error:
            print(f"{name}: no graph ({str(error).splitlines()[0]})", file=sys.stderr)
            continue
        found[name + GRAPH] = Side(replay, lambda kept=kept: [to_numpy(kept[-1])])  # type: ignore[misc]
    return found


def check(case: Case, sides: dict[str, Side], expected: np.ndarray) -> dict[str, float]:
    """Return the errors of all sides; exits where one is wrong."""
    errors = {}
    for name, side in sides.items():
        side.call()
        errors[name] = float(np.abs(side.outputs()[0].astype(np.float64) - expected).max())
        if not errors[name] <= TOLERANCE:
            sys.exit(f"{case} {name}: error {errors[name]:.2e}")
    return errors


def rows(
    device: torch.device, clock: Clock, seconds: float, quick: bool, only: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Check all cases, or those of the names, then time them."""
    wanted = [case for case in cases(quick) if not only or case.name in only]
    steps = QUICK_STEPS if quick else STEPS
    for case in wanted:
        sides, expected, _ = sides_of(case, device, steps)
        check(case, sides, expected)
    for case in wanted:
        sides, expected, refused = sides_of(case, device, steps)
        errors = check(case, sides, expected)
        times = race({name: side.call for name, side in sides.items()}, clock, seconds)
        yield {
            "case": asdict(case),
            "steps": steps,
            "refused": refused,
            "errors": errors,
            "times_us": {name: timing.as_json() for name, timing in times.items()},
        }
    yield {"case": {"name": "largest"}, "hidden": largest(device)}


def largest(device: torch.device) -> dict[str, int]:
    """Return the most units that fit, by batch and density, and those of a dense persistent kernel."""
    gpu: Gpu = cuda_machine(device).facts if device.type == "cuda" else KNOWN["H200"]
    cell = Cell("LSTM", "forward", (Activation("sigmoid"), Activation("tanh"), Activation("tanh")))
    found = {
        f"batch {batch}, {density:.0%}": largest_hidden(cell, density, Settings(batch, "fp16"), gpu)
        for batch in (1, 4, 8)
        for density in (0.3, 0.1, 0.05, 0.01)
    }
    return found | {"dense, by estimate": math.isqrt(int(DENSE_BYTES / 8))}


def best(times: dict[str, Any], *names: str) -> float | None:
    """Return the least time of some sides, recorded or not; None where there is none."""
    found = [times[name + end]["min"] for name in names for end in ("", GRAPH) if name + end in times]
    return min(found) if found else None


def ratio(row: dict[str, Any]) -> float | None:
    """Return how many times faster than the best other side ours is."""
    ours, others = (best(row["times_us"], *names) for names in ((OURS, STACK), (CUDNN, GEMM, CUSPARSE)))
    return None if ours is None or others is None else others / ours


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row of the table: microseconds a step, the better of recorded and not."""
    case = row["case"]
    if case["name"] == "largest":
        return ("largest", *("" for _ in COLUMNS[1:-1]), ", ".join(f"{k}: {v}" for k, v in row["hidden"].items()))
    told = (case["name"], str(case["hidden"]), str(case["batch"]), f"{case['density']:.0%}")
    times = [best(row["times_us"], *names) for names in ((OURS, STACK), (CUDNN,), (GEMM,), (CUSPARSE,))]
    shown = ("-" if time is None else f"{time / row['steps']:.2f}" for time in times)
    over = ratio(row)
    return (*told, *shown, row["refused"][:40] if over is None else f"{over:.2f}x")


def bars(found: Sequence[dict[str, Any]]) -> tuple[Bar, ...]:
    """Return the claims."""
    made = []
    for row in found:
        case, over = row["case"], None if row["case"]["name"] == "largest" else ratio(row)
        if over is None:
            continue
        if case["name"] == "sweep" and (case["hidden"], case["batch"]) == HEADLINE and case["density"] in BARS:
            title = f"LSTM {case['hidden']}, batch {case['batch']}, {case['density']:.0%}: over the best"
            made.append(Bar(title, over, BARS[case["density"]], True))
        if case["name"] == "larger":
            title = f"LSTM {case['hidden']}, {LARGER:g} times the largest dense model: over the best"
            made.append(Bar(title, over, LARGER_BAR, True))
    return tuple(made)
