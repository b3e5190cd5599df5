"""Verification: before a group is fused its kernel is compared with its body in float64, on seeded random inputs.

Each distinct call runs at the sizes of the measurements, shrunk by halving named axes, at odd sizes and at size 1, and
at each of them once on normal and once on positive numbers. The float64 results are those of onnx's reference
implementation; where that lacks an operator, onnxruntime's own results in the original precision take their place.
What counts as right is in accuracy.py. Results go to the cache, like measurements.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import cycle
from math import prod
from pathlib import Path
from time import thread_time
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from sartor.share.cache import get, put
from sartor.share.errors import InputRefusedError, UsageError
from sartor.share.execute import run_session
from sartor.share.inputs import Arrays, random_inputs
from sartor.tools.fuse.accuracy import JUMPS, SHAKEN, Accuracy, accuracy, change, precision, worst
from sartor.tools.fuse.axes import NotEmittableError, parse_size
from sartor.tools.fuse.measure import Setting, concrete_shapes, group_model
from sartor.tools.fuse.plan import Group, Verdict, Verification

if TYPE_CHECKING:
    from sartor.share.double import Twin
    from sartor.share.execute import Session

SECONDS = 6.0
"""Processor time after which no further comparison starts; the next run goes on where this one stopped."""

ELEMENTS = 1 << 16
"""Elements of all inputs down to which named axes are shrunk."""

LARGEST = 1 << 25
"""Elements above which a group is left alone: its float64 inputs would take more than 256 MiB."""

ODD = (7, 5, 3, 9, 11)
"""Sizes that fill no vector register; axes of different names get different ones in turn."""

DRAWS = 3
"""How many times intermediate results are shaken where a kernel errs by more than onnxruntime and a few units."""

BUDGET = f"not within {SECONDS:g} seconds"

Step = Callable[[int], None]
Sizes = dict[str, tuple[int, ...]]


class Budget:
    """The processor time that is left; compiling costs none, as a session of the fused model needs the code anyway."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds

    @contextmanager
    def spend(self) -> Iterator[None]:
        """Take the time of the block, in this thread, from what is left."""
        started = thread_time()
        try:
            yield
        finally:
            self.left -= thread_time() - started


class KernelFailedError(Exception):
    """A kernel does not run where its body does."""


@dataclass(frozen=True)
class Sides:
    """One call as a kernel, as its nodes run one by one, and in float64 where that can be had."""

    model: ir.Model
    ours: Session
    stock: Session
    twin: Twin | None
    jumps: bool


@dataclass(frozen=True)
class Run:
    """One comparison: the output that fails or comes closest to it, and whether float64 was the reference."""

    accuracy: Accuracy
    output: int
    double: bool
    numbers: bool


def verify(verdicts: Sequence[Verdict], setting: Setting, step: Step) -> tuple[Verdict, ...]:
    """Compare the kernel of every distinct call that is kept, and leave out those that give other results."""
    budget = Budget(SECONDS)
    known: dict[tuple[object, ...], Verification] = {}
    out = []
    for verdict in verdicts:
        key = (verdict.group.call.function.name, verdict.group.call.inputs)
        if verdict.kept and key not in known:
            known[key] = verification(verdict.group, setting, budget)
        out.append(_judged(verdict, known[key]) if verdict.kept else verdict)
        step(1)
    return tuple(out)


def _judged(verdict: Verdict, found: Verification) -> Verdict:
    if found.ok:
        return replace(verdict, verified=found)
    return replace(verdict, verified=found, kept=False, reason=f"its kernel gives other results: {found.reason}")


def verification(group: Group, setting: Setting, budget: Budget) -> Verification:
    """Compare one kernel, or look it up; when no time is left it is only looked up."""
    shapes = trial_shapes(group, setting.axes)
    if not shapes:
        return Verification(reason="its sizes are not known before run time, or too large")
    name = _entry(group, shapes, setting)
    found = get(name)
    if found is not None:
        return Verification(**json.loads(found))
    if budget.left <= 0:
        return Verification(reason=BUDGET)
    setting.place.prepare(group.call)
    try:
        with budget.spend():
            made = _compared(group, shapes, setting, budget.left)
    except KernelFailedError as error:
        made = Verification(checked=True, ok=False, reason=str(error))
    except (InputRefusedError, UsageError) as error:
        return Verification(reason=error.reason)
    put(name, json.dumps(asdict(made)).encode())
    return made


def trial_shapes(group: Group, axes: Mapping[str, int]) -> list[Sizes]:
    """List the distinct shapes of the inputs at which a kernel is compared."""
    names = sorted(set(_names(group)))
    odd, ones = dict(zip(names, cycle(ODD), strict=False)), dict.fromkeys(names, 1)
    shapes = [concrete_shapes(group, sizes) for sizes in (_shrunk(group, axes, names), odd, ones)]
    fitting = [each for each in shapes if each is not None and _elements(each) <= LARGEST]
    return [each for i, each in enumerate(fitting) if each not in fitting[:i]]


def _names(group: Group) -> Iterator[str]:
    """Yield the names of axes in the types of a group's inputs."""
    for kind in group.call.inputs:
        for dim in kind.shape if kind is not None else ():
            try:
                yield from parse_size(dim).names
            except NotEmittableError:
                continue


def _shrunk(group: Group, axes: Mapping[str, int], names: Sequence[str]) -> dict[str, int]:
    """Halve the longest named axis until the inputs fit the budget."""
    sizes = {name: axes[name] for name in names if name in axes}
    while any(size > 1 for size in sizes.values()):
        shapes = concrete_shapes(group, sizes)
        if shapes is None or _elements(shapes) <= ELEMENTS:
            break
        longest = max(sizes, key=sizes.__getitem__)
        sizes[longest] = (sizes[longest] + 1) // 2
    return sizes


def _elements(shapes: Sizes) -> int:
    return sum(prod(shape) for shape in shapes.values())


def _entry(group: Group, shapes: Sequence[Sizes], setting: Setting) -> str:
    place = setting.place
    facts = [
        *(place.identity(group.call), group.call.function.name, shapes, _weights(group)),
        *(*place.facts, setting.seed, _judges()),
    ]
    return f"v_{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]}.json"


@cache
def _judges() -> list[str]:
    """Name everything but the kernel that a comparison depends on."""
    import onnx
    import onnxruntime

    here = Path(__file__)
    sources = [here, here.with_name("accuracy.py"), here.parents[2] / "share" / "double.py"]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sources]
    return [onnxruntime.__version__, onnx.__version__, *digests]


def _weights(group: Group) -> list[str]:
    """Digest the weights among the inputs, because results depend on them."""
    tensors = [value.const_value for value in group.inputs if value is not None and not value.is_graph_input()]
    return [hashlib.sha256(tensor.tobytes()).hexdigest() for tensor in tensors if tensor is not None]


def _compared(group: Group, shapes: Sequence[Sizes], setting: Setting, seconds: float) -> Verification:
    """Run the comparisons of one kernel, as many as the time allows but those of one choice of sizes at least.

    Raises KernelFailedError, and InputRefusedError or UsageError where there is nothing to compare with.
    """
    started, sides = thread_time(), _sides(group, setting)
    runs: list[Run] = []
    for number, shape in enumerate(shapes):
        if not runs or thread_time() - started <= seconds:
            runs += _runs(sides, shape, (setting.seed, number))
    if not runs:
        raise UsageError("onnxruntime does not run its body on random inputs")
    if not any(run.numbers for run in runs):
        raise UsageError("no number comes out of it on random inputs")
    found = worst([run.accuracy for run in runs])
    last = next(run for run in runs if run.accuracy is found)
    return Verification(
        checked=True,
        ok=found.ok,
        max_error=float(found.error) if np.isfinite(found.error) else None,
        bound=found.bound,
        reference="float64" if all(run.double for run in runs) else "onnxruntime",
        runs=len(runs),
        reason="" if found.ok else _complaint(found, last.output),
    )


def _complaint(found: Accuracy, output: int) -> str:
    return (
        f"{found.wrong} of {found.size} elements of output {output} err by up to {found.error:.2g}, "
        f"where {found.bound:.2g} is allowed"
    )


def _sides(group: Group, setting: Setting) -> Sides:
    model, place = group_model(group), setting.place
    ours = place.open(model)
    if not place.kernels(ours):
        raise InputRefusedError("no session takes its kernel")
    stock = place.open(model, frozenset([group.call.function.name]))
    jumps = any(node.op_type in JUMPS for node in group.call.function)
    return Sides(model, ours, stock, _twin(model), jumps)


def _runs(sides: Sides, shapes: Sizes, seed: tuple[int, int]) -> Iterator[Run]:
    """Compare at one choice of sizes, on normal and on positive numbers; sizes that the body refuses are no trial."""
    given = {value.name: shapes[value.name] for value in sides.model.graph.inputs if value.name is not None}
    for draw, positive in enumerate((False, True)):
        feed = random_inputs(sides.model, given, [*seed, draw])
        if positive:
            feed = {name: np.abs(array) if array.dtype.kind == "f" else array for name, array in feed.items()}
        try:
            expected = run_session(sides.stock, feed, "the group")
        except UsageError:
            return
        yield _run(sides, feed, expected)


def _run(sides: Sides, feed: Arrays, expected: Sequence[Any]) -> Run:
    try:
        ours = run_session(sides.ours, feed, "the group")
    except UsageError as error:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
        raise KernelFailedError(f"none at all for {shapes}") from error
    exact = _exact(sides.twin, feed, expected)
    found = [accuracy(*outputs, sides.jumps) for outputs in zip(ours, expected, exact, strict=True)]
    if not all(each.ok for each in found):
        found = _judged_by_condition(sides, feed, ours, expected, exact)
    chosen = worst(found)
    numbers = all(array.size == 0 or bool(np.isfinite(array).any()) for array in expected)
    return Run(chosen, found.index(chosen), all(array is not None for array in exact), numbers)


def _twin(model: ir.Model) -> Twin | None:
    """Prepare the body in float64, or nothing where the reference implementation lacks an operator."""
    from sartor.share.double import twin_of

    try:
        return twin_of(ir.serde.serialize_model(model))
    # Whatever it lacks or trips over, an operator or a type, raises something else.
    except Exception:
        return None


def _exact(twin: Twin | None, feed: Arrays, expected: Sequence[Any]) -> Sequence[Any]:
    """Evaluate the body in float64; None for each output where the reference implementation does not."""
    from sartor.share.double import run_twin

    if twin is None:
        return [None] * len(expected)
    try:
        outputs = run_twin(twin, feed)
    except Exception:
        return [None] * len(expected)
    return [a if _fits(a, b) else None for a, b in zip(outputs, expected, strict=True)]


def _judged_by_condition(
    sides: Sides, feed: Arrays, ours: Sequence[Any], expected: Sequence[Any], exact: Sequence[Any]
) -> list[Accuracy]:
    """Compare again, and allow what roundings inside the body may amount to."""
    carried = [0.0] * len(ours)
    if sides.twin is not None and any(array is not None for array in exact):
        for draw in range(DRAWS):
            for i, error in enumerate(_changes(sides, sides.twin, feed, expected, exact, draw)):
                carried[i] = max(carried[i], error)
    outputs = zip(ours, expected, exact, carried, strict=True)
    return [accuracy(a, b, c, sides.jumps, error) for a, b, c, error in outputs]


def _changes(
    sides: Sides, twin: Twin, feed: Arrays, expected: Sequence[Any], exact: Sequence[Any], draw: int
) -> list[float]:
    """Return how far each output moves when every intermediate result is off a little."""
    from sartor.share.double import run_twin, shaken

    relative = SHAKEN * max((precision(array.dtype) for array in expected if array.dtype.kind == "f"), default=0.0)
    try:
        moved = run_twin(shaken(twin, relative, [draw]), feed)
    # Some operators of the reference implementation return float32 in spite of all.
    except Exception:
        return [0.0] * len(expected)
    outputs = zip(moved, exact, expected, strict=True)
    return [0.0 if b is None else change(a, b, c, sides.jumps) for a, b, c in outputs]


def _fits(exact: Any, stock: Any) -> bool:
    """Tell whether a result has the form that the standard asks for, and was computed in float64 where it matters."""
    wanted = "float64" if stock.dtype.kind == "f" else stock.dtype.name
    return bool(exact.shape == stock.shape and exact.dtype.name == wanted)
