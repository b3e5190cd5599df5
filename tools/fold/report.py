"""What came of a packing, for people and for programs."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from sartor.share.tables import Table, plain
from sartor.tools.fold.plan import Packed

SHOWN = 20
"""Of what was left out, at most, for people; the report names all of it."""


def as_data(packed: Packed) -> dict[str, Any]:
    """Return the report as JSON holds it."""
    return {"schema": 1, "tool": "fold-pack", **asdict(packed)}


def headline(packed: Packed) -> str:
    """Say in one line what was packed, how fast, and how much was left out."""
    shards = len(packed.written) + len(packed.kept)
    kept = f" ({len(packed.kept)} there already)" if packed.kept else ""
    seconds = max(packed.seconds, 1e-9)
    counts = Counter(one.kind for one in packed.dropped)
    left = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in sorted(counts.items()))
    return (
        f"{packed.chains} chains of {packed.sequences} sequences in {shards} shards{kept}, "
        f"{packed.seconds:.1f} s: {packed.rows / seconds:,.0f} rows and {packed.bytes / seconds / 1e6:.1f} MB a second"
        + (f"; left out: {left}" if left else "")
    )


def as_text(packed: Packed) -> str:
    """Return what was left out and why, for people."""
    rows = tuple((one.kind, one.name, one.reason) for one in packed.dropped[:SHOWN])
    more = len(packed.dropped) - len(rows)
    if more > 0:
        rows += (("", f"and {more} more", "--report names all"),)
    hits = tuple((reason, str(count)) for reason, count in packed.left_out.items())
    tables = (
        Table("left out", ("", "name", "because"), rows),
        Table("hits that are no templates", ("because", "hits"), hits),
    )
    return "\n\n".join(plain(table) for table in tables if table.rows)
