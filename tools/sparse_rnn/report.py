"""What became of the layers: density and error a gate, bytes before and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sartor.share.tables import Table, plain
from sartor.tools.sparse_rnn.encode import Coded, decode
from sartor.tools.sparse_rnn.find import Layer, W
from sartor.tools.sparse_rnn.oracle import GATES
from sartor.tools.sparse_rnn.pattern import Mask
from sartor.tools.sparse_rnn.plan import GatePlan, MatrixPlan, Plan, Results


def describe(
    kept: Mapping[Layer, Mapping[int, Mask]], coded: Mapping[Layer, Mapping[int, Coded]], refused: Mapping[str, str],
    before: int, after: int, results: Results | None, notes: Sequence[str] = (),
) -> Plan:  # fmt: skip
    """Compare what is coded with what was there."""
    rows = [
        row
        for layer, matrices in kept.items()
        for place, mask in matrices.items()
        for row in _matrices(layer, place, mask, coded[layer][place])
    ]
    return Plan(tuple(rows), dict(refused), before, after, results, tuple(notes))


def _matrices(layer: Layer, place: int, mask: Mask, coded: Coded) -> Iterator[MatrixPlan]:
    whole, sparse = (layer.weights.w if place == W else layer.weights.r), decode(coded)
    names = GATES[layer.cell.kind]
    for direction, (old, new, stays) in enumerate(zip(whole, sparse, mask, strict=True)):
        parts = zip(names, *(np.split(one, len(names)) for one in (old, new, stays)), strict=True)
        gates = tuple(GatePlan(name, float(stay.mean()), _apart(a, b)) for name, a, b, stay in parts)
        share = coded.bytes // layer.cell.directions
        matrix = "W" if place == W else "R"
        yield MatrixPlan(layer.name, layer.cell.kind, matrix, direction, layer.hidden, gates, old.nbytes, share)


def _apart(old: NDArray[Any], new: NDArray[Any]) -> float:
    return float(np.linalg.norm(old - new)) / max(float(np.linalg.norm(old)), 1e-30)


def as_data(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON holds it."""
    return {"schema": 1, "tool": "sparsify-rnn", **asdict(plan)}


def headline(plan: Plan) -> str:
    """Say in one line what became of the model."""
    before, after = (sum(getattr(one, name) for one in plan.matrices) for name in ("bytes_before", "bytes_after"))
    layers = len({one.layer for one in plan.matrices})
    return (
        f"{layers} recurrent layers: their weights {before / after:.1f} times smaller, "
        f"all constants {plan.bytes_before / plan.bytes_after:.1f} times, {plan.bytes_after} bytes"
        f"{_quality(plan.results)}"
    )


def _quality(results: Results | None) -> str:
    return "" if results is None else f"; {results.metric} {results.before:.4f} -> {results.after:.4f}"


def as_text(plan: Plan) -> str:
    """Return the plan for people."""
    rows = tuple(
        (one.layer, f"{one.matrix}{one.direction}", str(one.hidden), of.gate, f"{of.density:.3f}", f"{of.error:.4f}")
        for one in plan.matrices
        for of in one.gates
    )
    tables = [
        Table("gates", ("layer", "matrix", "hidden", "gate", "density", "error"), rows),
        Table("left as they are", ("node", "because"), tuple(plan.refused.items())),
    ]
    return "\n\n".join([headline(plan), *(plain(table) for table in tables if table.rows)])
