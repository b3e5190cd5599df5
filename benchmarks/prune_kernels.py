"""Time what `sartor prune` computes with against what numpy and torch offer for it, on one thread of the CPU.

Gram matrices of what layers read, against an unfolded design matrix (float32 products of some images, summed in
float64, as ours); weights of the first k classes for all k, against a factor and a solution for each k; saliency of
channels; costs of counts and the resource wall, against the same sums as dense arrays of numpy. Each result is first
compared with float64. Gathering rows and columns of a weight is not here: numpy's `take`, twice, is twice as fast as a
loop of numba.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from _common import Bar, Outcome, error, finish, geometric_mean, parser, require_close

from sartor.share.timing import Race, race
from sartor.tools.prune.kernels import nested
from sartor.tools.prune.kernels.moments import CHUNK, moments, moments_reference, shift_of
from sartor.tools.prune.kernels.resources import (
    AxisCount,
    NodeCost,
    ResourceModel,
    resource_model,
    totals,
    totals_reference,
    walls,
)  # fmt: skip
from sartor.tools.prune.kernels.saliency import Part, channel_sums, channel_sums_reference
from sartor.tools.prune.kernels.window import DENSE, Array, Window, unfold

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
COLUMNS = ("kernel", "case", "sartor us", "numpy us", "ratio", "torch us", "ratio")
Side = Callable[[], Sequence[Array]]


@dataclass(frozen=True)
class Case:
    """What to compute, by whom, and the float64 result; `counts` tells whether a bar counts it."""

    kernel: str
    name: str
    ours: Side
    others: dict[str, Side]
    expected: Sequence[Array]
    counts: bool = True


@dataclass(frozen=True)
class Result:
    """A case that was checked and timed; sartor is `a` in the races."""

    case: Case
    errors: dict[str, float]
    times: dict[str, Race]

    def as_json(self) -> dict[str, Any]:
        """Return the row of the result file; races in microseconds a call."""
        races = {side: times.as_json() for side, times in self.times.items()}
        return {"kernel": self.case.kernel, "case": self.case.name, "errors": self.errors, **races}

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table: least times, and ratios of them."""
        ours = min(times.a.minimum for times in self.times.values())
        sides = [self.times.get(side) for side in ("numpy", "torch")]
        others = [(f"{t.b.minimum:.1f}", f"{t.ratio_min:.2f}") if t else ("-", "-") for t in sides]
        return self.case.kernel, self.case.name, f"{ours:.1f}", *others[0], *others[1]


def measure(case: Case, seconds: float) -> Result:
    """Check all sides of a case and time ours against each other one; exits on a wrong result."""
    sides = {"sartor": case.ours, **case.others}
    errors = {side: error(call(), case.expected) for side, call in sides.items()}
    for side, found in errors.items():
        require_close(f"{case.kernel} {case.name} by {side}", found)
    return Result(case, errors, {side: race(case.ours, call, seconds) for side, call in case.others.items()})


def square(kernel: int, stride: int = 1) -> Window:
    """Make a two-dimensional window padded to keep the map's size."""
    pad = kernel // 2
    return Window((kernel,) * 2, (stride,) * 2, (1, 1), (pad, pad), (pad, pad))


GRAMS = {
    "3x3, 16 channels, 16x16": (square(3), (256, 16, 16, 16)),
    "3x3, 64 channels, 8x8": (square(3), (256, 64, 8, 8)),
    "3x3, 64 channels, 56x56": (square(3), (16, 64, 56, 56)),
    "3x3, 256 channels, 14x14": (square(3), (64, 256, 14, 14)),
    "5x5, 16 channels, 32x32": (square(5), (64, 16, 32, 32)),
    "3x3 by 2, 32 channels, 16x16": (square(3, 2), (256, 32, 16, 16)),
    "1x1, 64 channels, 16x16": (square(1), (256, 64, 16, 16)),
    "dense, 512 features": (DENSE, (8192, 512)),
}


def grams(quick: bool) -> Iterator[Case]:
    """Sum Gram matrices of maps that a ReLU puts out."""
    for name, (window, shape) in list(GRAMS.items())[:: 7 if quick else 1]:
        yield gram_case(name, window, (8, *shape[1:]) if quick else shape)


def gram_case(name: str, window: Window, shape: tuple[int, ...]) -> Case:
    """Sum what one layer reads; bars count the windows for which the design matrix is not written."""
    x = np.maximum(np.random.default_rng(0).standard_normal(shape, np.float32), 0)
    shift = shift_of(x, window)
    expected = moments_reference(x, window, shift).gram
    raw = moments_reference(x, window, np.zeros_like(shift)).gram
    others: dict[str, Side] = {
        "numpy": lambda: [numpy_gram(x, window) - raw + expected],
        "torch": lambda: [torch_gram(x, window) - raw + expected],
    }
    counted = window.taps > 1 and set(window.stride) == {1}
    return Case("gram", name, lambda: [moments(x, window, shift).gram], others, [expected], counted)


def images_of(shape: tuple[int, ...]) -> int:
    """Count the images of one product."""
    return max(1, CHUNK // int(np.prod(shape[2:])))


def numpy_gram(x: Array, window: Window) -> Array:
    """Unfold by numpy; its product of a matrix with its own transpose is a symmetric update of BLAS."""
    total: Array = np.zeros(())
    for first in range(0, len(x), images_of(x.shape)):
        design = np.ascontiguousarray(unfold(x[first : first + images_of(x.shape)], window)[0])
        total = total + (design.T @ design).astype(np.float64)
    return total[None]


def torch_gram(x: Array, window: Window) -> Array:
    """Unfold by torch."""
    total = torch.zeros((), dtype=torch.float64)
    for part in torch.from_numpy(x).split(images_of(x.shape)):
        design = part
        if window.kernel:
            unfolded = torch.nn.functional.unfold(part, window.kernel, window.dilation, window.begin, window.stride)
            design = unfolded.transpose(1, 2).reshape(-1, unfolded.shape[1])
        total = total + (design.T @ design).double()
    return np.asarray(total[None].numpy())


NESTED = {
    "16 classes of 9, 16 outputs": (16, 9, 16),
    "32 classes of 9, 32 outputs": (32, 9, 32),
    "64 classes of 9, 64 outputs": (64, 9, 64),
    "256 classes of 1, 256 outputs": (256, 1, 256),
}


def nested_cases(quick: bool) -> Iterator[Case]:
    """Fit the first k classes for all k."""
    for name, sizes in list(NESTED.items())[: 1 if quick else None]:
        yield nested_case(name, *sizes)


def nested_case(name: str, count: int, size: int, outputs: int) -> Case:
    """Fit one layer; torch calls what cho_factor and cho_solve of scipy call. Bars leave out what takes no time."""
    rng = np.random.default_rng(0)
    design = rng.standard_normal((1, 2 * count * size, count * size))
    gram = design.swapaxes(1, 2) @ design
    right = gram @ rng.standard_normal((1, count * size, outputs))
    ends = [size * k for k in range(1, count + 1)]
    others: dict[str, Side] = {
        "numpy": lambda: [nested.weights_reference(gram, right, end) for end in ends],
        "torch": lambda: [torch_weights(gram, right, end) for end in ends],
    }
    return Case("nested", name, lambda: all_weights(gram, right, ends), others, others["numpy"](), count > 16)


def all_weights(gram: Array, right: Array, ends: Sequence[int]) -> list[Array]:
    """Fit all leading parts by one factor."""
    factor = nested.cholesky(gram)
    solved = nested.forward(factor, right)
    return [nested.weights_of_first(factor, solved, end) for end in ends]


def torch_weights(gram: Array, right: Array, end: int) -> Array:
    """Factor and solve a leading part."""
    factor = torch.linalg.cholesky(torch.from_numpy(gram)[:, :end, :end])
    return np.asarray(torch.cholesky_solve(torch.from_numpy(right)[:, :end], factor).numpy())


SALIENCIES = {
    "Conv 256x256x3x3, inputs": ((256, 256, 3, 3), 1),
    "Conv 256x256x3x3, outputs": ((256, 256, 3, 3), 0),
    "Gemm 512x2048, rows": ((512, 2048), 0),
    "Gemm 512x2048, columns": ((512, 2048), 1),
}


def saliencies(quick: bool) -> Iterator[Case]:
    """Sum squares and magnitudes of channels."""
    for name, (shape, axis) in list(SALIENCIES.items())[: 1 if quick else None]:
        yield saliency_case(name, shape, axis)


def saliency_case(name: str, shape: tuple[int, ...], axis: int) -> Case:
    """Sum one tensor."""
    weight = np.random.default_rng(0).standard_normal(shape, np.float32)
    part, same = Part(weight, axis, np.arange(shape[axis])), torch.from_numpy(weight)
    rest = tuple(i for i in range(len(shape)) if i != axis)
    norm = torch.linalg.vector_norm
    others: dict[str, Side] = {
        "numpy": lambda: [np.square(weight).sum(rest), np.abs(weight).sum(rest)],
        "torch": lambda: [norm(same, 2, rest).square().numpy(), norm(same, 1, rest).numpy()],
    }
    return Case("saliency", name, lambda: channel_sums(part), others, channel_sums_reference(part))


RESOURCES = {"20 units, 32 vectors": (20, 32), "50 units, 32 vectors": (50, 32), "50 units, 2048 vectors": (50, 2048)}


def resources(quick: bool) -> Iterator[Case]:
    """Evaluate counts, and the wall of a unit in the middle, of a residual network's layers of 64 channels."""
    for name, (units, batch) in list(RESOURCES.items())[: 1 if quick else None]:
        yield from resource_cases(name, units, batch)


def resource_cases(name: str, units: int, batch: int) -> Iterator[Case]:
    """Evaluate one batch of counts."""
    model = network(units)
    dense = dense_model(model, units)
    counts = np.random.default_rng(0).integers(1, 65, (batch, units)).astype(float)
    expected = totals_reference(model, counts)
    yield Case("cost", name, lambda: [totals(model, counts)], {"numpy": lambda: [dense(counts)]}, [expected])
    unit, choices, budget = units // 2, np.arange(1, 65), float(np.median(expected))
    others: dict[str, Side] = {"numpy": lambda: [dense_walls(dense, counts, unit, choices, budget)]}
    yield Case("wall", name, lambda: [walls(model, counts, unit, choices, budget)], others, others["numpy"]())


def network(units: int) -> ResourceModel:
    """Make layers between neighbouring units, each also with one that all blocks add up to."""
    axes = [AxisCount(0, ((u, 1),)) for u in range(units)]
    chain = [NodeCost(900.0, pair) for pair in pairwise(axes)]
    blocks = [NodeCost(100.0, (axis, axes[0])) for axis in axes[1:]]
    return resource_model([*chain, *blocks, NodeCost(10.0, (axes[-1],))], units)


def dense_model(model: ResourceModel, units: int) -> Callable[[Array], Array]:
    """Write a model as a product with a matrix of multiples, and products and a sum of its columns."""
    multiples = np.zeros((units, len(model.const)))
    for axis, (begin, end) in enumerate(pairwise(model.term_start)):
        np.add.at(multiples[:, axis], model.term_unit[begin:end], model.term_multiple[begin:end])
    starts, const, coefficient = model.axis_start[:-1], model.const, model.coefficient
    return lambda counts: np.multiply.reduceat(const + counts @ multiples, starts, axis=1) @ coefficient


def dense_walls(cost: Callable[[Array], Array], counts: Array, unit: int, choices: Array, budget: float) -> Array:
    """Bisect for all vectors at a time."""
    work, low, high = counts.copy(), np.zeros(len(counts), int), np.full(len(counts), len(choices))
    while np.any(open_ := high - low > 1):
        middle = (low + high) // 2
        work[:, unit] = choices[middle]
        fits = cost(work) <= budget
        low, high = np.where(open_ & fits, middle, low), np.where(open_ & ~fits, middle, high)
    return choices[low].astype(float)


KERNELS = {"gram": grams, "nested": nested_cases, "saliency": saliencies, "resources": resources}


def bars_of(results: Sequence[Result]) -> tuple[Bar, ...]:
    """Ask for three times the speed of each other side, as a geometric mean over cases that count."""
    ratios: dict[str, list[float]] = {}
    for result in results:
        for side, times in result.times.items() if result.case.counts else ():
            ratios.setdefault(f"{result.case.kernel}: geometric mean over {side}", []).append(times.ratio_min)
    return tuple(Bar(claim, geometric_mean(values), 3.0, True) for claim, values in ratios.items())


def main() -> None:
    """Measure all kernels, or those named."""
    made = parser(__doc__)
    made.add_argument("--only", nargs="*", choices=KERNELS, help="kernels")
    made.add_argument("--seconds", type=float, default=2.0, help="time of one race")
    options = made.parse_args()
    torch.set_num_threads(1)
    results = []
    for kernel in options.only or KERNELS:
        for case in KERNELS[kernel](options.quick):
            results.append(measure(case, 0.02 if options.quick else options.seconds))
            print(*results[-1].cells(), file=sys.stderr, flush=True)
    settings = {"threads": 1, "seconds": options.seconds}
    cells, rows = tuple(one.cells() for one in results), tuple(one.as_json() for one in results)
    finish(Outcome("prune_kernels", settings, COLUMNS, cells, rows, bars_of(results)), options)


if __name__ == "__main__":
    if any(os.environ.get(name) != "1" for name in THREADS):
        # The libraries behind numpy and torch count their threads once, when they are loaded.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **dict.fromkeys(THREADS, "1")})
    main()
