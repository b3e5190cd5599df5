"""Tables for people: drawn on a terminal, aligned plain text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from sartor.share.console import one_line


@dataclass(frozen=True)
class Table:
    """Rows of text under a title."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def show(tables: Sequence[Table]) -> None:
    """Print the tables that have rows on standard output."""
    filled = [_safe(table) for table in tables if table.rows]
    if sys.stdout.isatty():
        _draw(filled)
    else:
        print("\n\n".join(plain(table) for table in filled))


def plain(table: Table) -> str:
    """Return a table as aligned text: the title, then the rows indented by two."""
    grid = [table.columns, *table.rows] if any(table.columns) else list(table.rows)
    widths = [max(len(row[column]) for row in grid) for column in range(len(table.columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in grid]
    return "\n".join([table.title, *("  " + line for line in lines)])


def _safe(table: Table) -> Table:
    """Take what could steer a terminal out of names that come from a file."""
    rows = tuple(tuple(one_line(cell) for cell in row) for row in table.rows)
    return Table(one_line(table.title), table.columns, rows)


def _draw(tables: Sequence[Table]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    console = Console(file=sys.stdout)
    for table in tables:
        drawn = Drawn(title=Text(table.title), title_justify="left", box=box.SIMPLE, show_header=any(table.columns))
        for column in table.columns:
            drawn.add_column(column, overflow="fold")
        for row in table.rows:
            drawn.add_row(*map(Text, row))
        console.print(drawn)
