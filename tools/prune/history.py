"""The history of a search in HDF5: what was searched, every episode, and what was learned; never code.

    /              attributes: kind, schema, the facts of `Run`; for people, the number of episodes and the best score
    /units         names, sizes, least, steps, facts (units, facts), base; curves/<u> (size + 1,); products, as JSON
    /episodes      counts (episodes, units), scores (episodes,)
    /learned/...   arrays by name: the agent's parameters

A file is written whole after every episode, atomically: killed at any moment it holds every finished one. Transitions
of an agent are recomputed from the episodes, so that features may change.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sartor.share.artifact import Kind, identify, open_hdf5, write_bytes
from sartor.share.artifact.contents import damaged
from sartor.share.errors import InputRefusedError, UsageError
from sartor.tools.prune.allocate import cost_of
from sartor.tools.prune.kernels.resources import AxisCount, NodeCost
from sartor.tools.prune.problem import Counts, Floats, Problem

if TYPE_CHECKING:
    import h5py

KIND, SCHEMA = "sartor.prune.history", 1
LEARNED = "learned"


@dataclass(frozen=True)
class Run:
    """What a search was about; equal fingerprints (sha256) mean the same model and the same data."""

    model: str
    data: str
    metric: str
    budget: str
    ratio: float
    strategy: str
    start: str
    seed: int
    shard: str
    original: float
    uniform: float


@dataclass(frozen=True)
class History:
    """A search: its facts, problem and first counts, its episodes in order, and what an agent learned.

    `source` is the file that it was read from.
    """

    run: Run
    problem: Problem
    base: Counts
    counts: Counts
    scores: Floats
    learned: Mapping[str, NDArray[np.float32]]
    source: str = ""

    def with_episode(self, counts: Counts, score: float) -> History:
        """Return the history with one more episode."""
        more = np.concatenate([self.counts, counts[None]])
        return replace(self, counts=more, scores=np.append(self.scores, score))

    def rewards(self) -> Floats:
        """Return standardised rewards: 0 for uniform counts, 1 for the original."""
        return standardised(self.scores, self.run.uniform, self.run.original)


def standardised(scores: Floats, uniform: float, original: float) -> Floats:
    """Put scores on a scale that networks share: 0 for uniform counts, 1 for the original."""
    return np.asarray((scores - uniform) / max(original - uniform, 1e-3), np.float64)


def write_history(history: History, target: str | Path) -> None:
    """Write a history atomically."""
    import h5py

    buffer = io.BytesIO()
    # Newer formats note the time in groups.
    with h5py.File(buffer, "w", libver="earliest") as file:
        file.attrs.update({"kind": KIND, "schema": SCHEMA, **asdict(history.run)})
        file.attrs.update({"episodes": len(history.scores), "best": float(history.scores.max(initial=-np.inf))})
        _write_problem(file.create_group("units"), history.problem, history.base)
        file["episodes/counts"], file["episodes/scores"] = history.counts, history.scores
        for name, array in sorted(history.learned.items()):
            file[f"{LEARNED}/{name}"] = array
    write_bytes(buffer.getvalue(), target)


def _write_problem(group: h5py.Group, problem: Problem, base: Counts) -> None:
    import h5py

    group["names"] = np.array(problem.names, h5py.string_dtype())
    for name in ("sizes", "least", "steps", "facts", "budget"):
        group[name] = getattr(problem, name)
    group["base"] = base
    group["products"] = json.dumps(
        [[one.coefficient, [[a.const, a.terms] for a in one.axes]] for one in problem.costs.nodes]
    )
    for i, curve in enumerate(problem.curves):
        group[f"curves/{i}"] = curve


def read_history(path: str | Path) -> History:
    """Read a history; raises InputRefusedError for another kind of file, a newer schema and damage."""
    subject = str(path)
    with open_hdf5(path) as file:
        if file.attrs.get("kind") != KIND:
            raise InputRefusedError("this is no history of prune", subject=subject, remedy="Give one of --save-history")
        schema = int(file.attrs.get("schema", 0))
        if schema != SCHEMA:
            raise InputRefusedError(f"its schema is {schema}, not {SCHEMA}", subject=subject, remedy="Upgrade sartor")
        try:
            history = replace(_parse(file), source=subject)
            _check(history)
        except (KeyError, TypeError, ValueError, OSError, AssertionError) as error:
            raise damaged("the history is damaged", subject) from error
    return history


def read_histories(paths: tuple[str, ...]) -> tuple[History, ...]:
    """Read files, and all files with the ending .h5 of folders, in order of name; raises UsageError for none."""
    found: list[Path] = []
    for path in map(Path, paths):
        found += sorted(path.glob("*.h5")) if path.is_dir() else [path]
    if paths and not found:
        raise UsageError("there are no histories in it", subject=paths[0], remedy="Give files of --save-history")
    return tuple(map(read_history, found))


def is_history(path: str | Path) -> bool:
    """Tell whether a file is a history."""
    if identify(path) is not Kind.HDF5:
        return False
    with open_hdf5(path) as file:
        return bool(file.attrs.get("kind") == KIND)


def _parse(file: h5py.File) -> History:
    attributes = dict(file.attrs)
    run = Run(**{one.name: _plain(attributes[one.name]) for one in fields(Run)})
    learned: dict[str, NDArray[np.float32]] = {}
    if LEARNED in file:
        learned = {name: file[LEARNED][name][()].astype(np.float32) for name in file[LEARNED]}
    counts, scores = (file[f"episodes/{name}"][()] for name in ("counts", "scores"))
    base = file["units/base"][()].astype(np.int64)
    return History(run, _parse_problem(file["units"]), base, counts.astype(np.int64), scores.astype(float), learned)


def _parse_problem(group: h5py.Group) -> Problem:
    sizes, least, steps = (group[name][()].astype(np.int64) for name in ("sizes", "least", "steps"))
    products = json.loads(group["products"][()])
    nodes = [NodeCost(float(n), tuple(_axis(const, of, len(sizes)) for const, of in axes)) for n, axes in products]
    return Problem(
        tuple(name.decode() for name in group["names"][()]),
        sizes,
        least,
        steps,
        tuple(group[f"curves/{i}"][()].astype(np.float64) for i in range(len(sizes))),
        group["facts"][()].astype(np.float64),
        cost_of(nodes, len(sizes)),
        float(group["budget"][()]),
    )


def _axis(const: int, pairs: list[list[int]], units: int) -> AxisCount:
    assert all(0 <= unit < units for unit, _ in pairs)
    return AxisCount(int(const), tuple((int(unit), int(times)) for unit, times in pairs))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _check(history: History) -> None:
    """Assert what a search takes for granted."""
    problem, count = history.problem, history.problem.units
    assert history.counts.shape == (len(history.scores), count)
    assert len(problem.names) == len(problem.facts) == len(history.base) == count
    assert all(len(curve) == size + 1 for curve, size in zip(problem.curves, problem.sizes, strict=True))
    assert (history.counts >= 1).all()
    assert (history.counts <= problem.sizes).all()
    assert (problem.steps >= 1).all()
    assert all(np.isfinite(node.coefficient) for node in problem.costs.nodes)
    arrays: list[NDArray[Any]] = [history.scores, problem.facts, *problem.curves, *history.learned.values()]
    assert all(np.isfinite(array).all() for array in arrays)
    assert isinstance(history.run.seed, int)
    assert isinstance(history.run.ratio, float)
