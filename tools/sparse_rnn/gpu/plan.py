"""From a layer's weights to launches: both directions at the same time where they fit, else one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sartor.tools.sparse_rnn.gpu.layout import Entries, Packed, pack, places_of, row_counts
from sartor.tools.sparse_rnn.gpu.limits import (
    LARGEST_BATCH,
    Gpu,
    Settings,
    fitting,
    programs_for,
    refusal,
    shapes,
)  # fmt: skip
from sartor.tools.sparse_rnn.gpu.order import Order
from sartor.tools.sparse_rnn.gpu.shape import Shape, banks_of, lanes_for
from sartor.tools.sparse_rnn.oracle import Cell

Array = NDArray[Any]


@dataclass(frozen=True)
class Source:
    """A layer as it is packed from; bias is [D, 2 G H], peepholes [D, 3 H]."""

    name: str
    cell: Cell
    entries: Entries
    bias: Array | None
    peepholes: Array | None


@dataclass(frozen=True)
class Launch:
    """Directions that run in one launch, and their packed weights."""

    directions: tuple[int, ...]
    packed: Packed


def plan(
    source: Source, settings: Settings, gpu: Gpu, share: int = 1, order: Literal["bank", "sorted"] = "bank"
) -> tuple[Launch, ...]:
    """Pack a layer for a GPU, of which it may have one of `share` parts; `sorted` leaves banks out of account.

    Raises InputRefusedError, with the largest size that would fit, for a layer that does not.
    """
    gpu = replace(gpu, processors=gpu.processors // share)
    found = [(group, _chosen(source, settings, gpu, group, order)) for group in _groups(source.cell)[0]]
    if any(choice is None for _, choice in found):
        found = [(group, _chosen(source, settings, gpu, group, order)) for group in _groups(source.cell)[1]]
    return tuple(_packed(source, group, choice, settings, gpu) for group, choice in found)


@dataclass(frozen=True)
class _Choice:
    """A shape with where units lie, and the order of weights."""

    shape: Shape
    places: Array
    order: Order


def _groups(cell: Cell) -> tuple[Sequence[tuple[int, ...]], Sequence[tuple[int, ...]]]:
    """Return the directions of each launch, as many together as may be, and one by one."""
    single = [(direction,) for direction in range(cell.directions)]
    alike = cell.directions == 2 and cell.of(0) == cell.of(1)
    return [(0, 1)] if alike else single, single


def _chosen(source: Source, settings: Settings, gpu: Gpu, directions: tuple[int, ...], order: str) -> _Choice | None:
    """Choose a shape for directions that run at the same time; None where they do not fit."""
    if settings.batch > LARGEST_BATCH:
        return None
    cell, hidden = source.cell, source.entries.hidden
    lanes = lanes_for(settings.batch)
    programs = programs_for(hidden, lanes, gpu.processors // len(directions))
    places, even = places_of(source.entries, banks_of(lanes, settings.wide))
    if order == "sorted":
        places, even = np.arange(hidden), False
    counts = row_counts(source.entries, cell, places, directions, programs)
    reverse = tuple(cell.direction == "reverse" or direction == 1 for direction in directions)
    peepholes = source.peepholes is not None
    for odd in (True, False) if even else (False,):
        found = fitting(
            shapes(cell, hidden, counts, reverse, cell.of(directions[0]), peepholes, programs, settings, odd), gpu
        )
        if found is not None:
            best: Order = "constructive" if odd else "greedy"
            return _Choice(found, places, "sorted" if order == "sorted" else best)
    return None


def _packed(
    source: Source, directions: tuple[int, ...], choice: _Choice | None, settings: Settings, gpu: Gpu
) -> Launch:
    if choice is None:
        weights = int(np.bincount(source.entries.direction).max(initial=0))
        raise refusal(source.name, source.cell, source.entries.hidden, weights, settings, gpu)
    packed = pack(
        choice.shape, source.entries, source.cell, choice.places, choice.order, directions, source.bias,
        source.peepholes,
    )  # fmt: skip
    return Launch(directions, packed)
