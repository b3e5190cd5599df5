"""Decide whether two models compute the same: one in our session, the reference in stock onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sartor.share.compare import OutputDifference, Tolerance, compare, merge, unequal, worst
from sartor.share.errors import GoalNotMetError, UsageError
from sartor.share.execute import open_session, output_names, run_session
from sartor.share.inputs import Arrays, Sizes, load_inputs, random_inputs, required_inputs

if TYPE_CHECKING:
    from sartor.share.artifact import Model
    from sartor.share.execute import Session


@dataclass(frozen=True)
class Verdict:
    """The worst difference of every output over all samples."""

    outputs: tuple[OutputDifference, ...]

    @property
    def ok(self) -> bool:
        """Tell whether all outputs agree."""
        return all(output.ok for output in self.outputs)

    def as_json(self) -> dict[str, Any]:
        """Return the verify document."""
        return {"schema": 1, "ok": self.ok, "outputs": [output.as_json() for output in self.outputs]}

    def require(self, a: Model, b: Model) -> None:
        """Raise GoalNotMetError, naming the worst output, unless all outputs agree."""
        failed = worst(self.outputs)
        if failed is not None:
            raise GoalNotMetError(
                f"output {failed.name!r} is not that of {b.source}: {failed.reason}",
                subject=a.source,
                remedy="See all outputs with `sartor verify --json`",
            )


@dataclass(frozen=True)
class Side:
    """A model in its session."""

    model: Model
    session: Session


def open_pair(a: str, b: str | None, threads: int, device: str = "cpu", pack: str | None = None) -> tuple[Side, Side]:
    """Open `a` in our session on a device, and `b`, or `a` again when None, in stock onnxruntime on the CPU.

    `pack` is a file of packed weights of `a`.

    Raises InputRefusedError, UnavailableError, and UsageError when both are to come from standard input.
    """
    from sartor.share.artifact import read_model

    if a == b == "-":
        raise UsageError("both models can't come from standard input", remedy="Name one of the files")
    first = read_model(a)
    second = first if b is None else read_model(b)
    return (
        Side(first, open_session(first, "sartor", threads, device, pack)),
        Side(second, open_session(second, "onnxruntime", threads)),
    )


def feeds(model: Model, source: str | None, given: Sizes, seed: int, samples: int) -> Iterator[Arrays]:
    """Yield the inputs of a file, or `samples` random ones; raises UsageError when a file comes with sizes."""
    if source is None:
        yield from (random_inputs(model.ir, given, (seed, sample)) for sample in range(samples))
        return
    if given:
        raise UsageError("--shape is for random inputs, not for those of a file", remedy="Leave out one of the two")
    yield load_inputs(source, model.ir)


def verify(a: Side, b: Side, inputs: Iterable[Arrays], tolerance: Tolerance) -> Verdict:
    """Run both on the same inputs and compare all outputs by name."""
    if reason := _interface_difference(a.model, b.model):
        return Verdict(tuple(unequal(name, reason) for name in output_names(b.session)))
    samples = [_compare_once(a, b, feed, tolerance) for feed in inputs]
    return Verdict(tuple(merge(samples)))


def _interface_difference(a: Model, b: Model) -> str:
    names_a, names_b = ({value.name for value in required_inputs(model.ir)} for model in (a, b))
    return "" if names_a == names_b else f"the inputs are {_listed(names_a)} instead of {_listed(names_b)}"


def _compare_once(a: Side, b: Side, feed: Arrays, tolerance: Tolerance) -> list[OutputDifference]:
    expected = dict(_outputs(b, feed))
    actual = dict(_outputs(a, feed))
    common = [compare(name, actual[name], expected[name], tolerance) for name in expected if name in actual]
    missing = [unequal(name, "the output is missing") for name in expected if name not in actual]
    surplus = [unequal(name, "the reference has no such output") for name in actual if name not in expected]
    return [*common, *missing, *surplus]


def _outputs(side: Side, feed: Arrays) -> Iterator[tuple[str, Any]]:
    return zip(output_names(side.session), run_session(side.session, feed, side.model.source), strict=True)


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(sorted(map(str, names))) or "none"
