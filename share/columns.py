"""The table that an HDF5 file may have: a group `table` of columns, each a dataset of one axis, all equally long.

The attribute `columns` of the group, names in a text with spaces between them, tells their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sartor.share.tables import Table

if TYPE_CHECKING:
    import h5py

NAME, ORDER = "table", "columns"
SHOWN = 50
"""Rows that people see, at most."""

Columns = Mapping[str, Sequence[Any]]


def read_columns(file: h5py.File) -> dict[str, list[Any]] | None:
    """Return the columns of an open file as numbers and texts, None where it has no table."""
    import h5py

    group = file.get(NAME)
    if not isinstance(group, h5py.Group):
        return None
    datasets = {name: item for name, item in group.items() if isinstance(item, h5py.Dataset)}
    if not datasets or len({dataset.shape for dataset in datasets.values()}) != 1:
        return None
    if any(len(dataset.shape) != 1 or dataset.dtype.names for dataset in datasets.values()):
        return None
    order = str(group.attrs.get(ORDER, "")).split()
    names = sorted(datasets, key=lambda name: order.index(name) if name in order else len(order))
    return {name: [_plain(value) for value in datasets[name][()].tolist()] for name in names}


def _plain(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def column_table(columns: Columns | None) -> Table:
    """Lay the first rows of columns out for people."""
    if not columns:
        return Table(NAME, (), ())
    count = len(next(iter(columns.values())))
    rows = [tuple(f"{column[row]:g}" if isinstance(column[row], float) else str(column[row])
                  for column in columns.values()) for row in range(min(count, SHOWN))]  # fmt: skip
    if count > SHOWN:
        rows.append((f"and {count - SHOWN} more", *("" for _ in list(columns)[1:])))
    return Table(f"{NAME} of {count} rows", tuple(columns), tuple(rows))
