"""Template hits in hhr (HHsearch): which residues of which chain are aligned to which of the query, and how surely."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sartor.share.errors import InputRefusedError

_SECTION = re.compile(rb"(?m)^No \d+[ \t\r]*$")
_SUMS = re.compile(rb"Sum_probs=(\d+(?:\.\d+)?)")
_ALIGNED = re.compile(rb"^(Q|T) (\S+)\s+(\d+) (\S+)\s+\d+ \(\d+\)\s*$")
_NAME = re.compile(r"([0-9a-zA-Z]{4,})_([0-9a-zA-Z.-]+)")
_REMEDY = "Run HHsearch again"


@dataclass(frozen=True)
class Hit:
    """A template: its entry and chain, and rows of query and template, gaps included, with where each begins, from 0.

    `sum_probs` is the expected number of residues that are aligned rightly.
    """

    code: str
    chain: str
    sum_probs: float
    query: str
    template: str
    query_start: int
    template_start: int

    @property
    def name(self) -> str:
        """The chain as others name it."""
        return f"{self.code}_{self.chain}"

    @property
    def letters(self) -> str:
        """The residues of the template that take part."""
        return self.template.replace("-", "")

    def pairs(self) -> list[tuple[int, int]]:
        """Return what is aligned: residues of the query, and places in `letters`, both from 0."""
        out, at, other = [], self.query_start, 0
        for of_query, of_template in zip(self.query, self.template, strict=True):
            if of_query != "-" and of_template != "-":
                out.append((at, other))
            at, other = at + (of_query != "-"), other + (of_template != "-")
        return out


def parse_hhr(data: bytes, subject: str) -> list[Hit]:
    """Parse an hhr file into its hits in their order; raises InputRefusedError for what is none, or is damaged."""
    if not data.startswith(b"Query"):
        raise InputRefusedError("it is not in hhr format", subject=subject, remedy="Give what HHsearch writes with -o")
    return [_hit(section, number, subject) for number, section in enumerate(_SECTION.split(data)[1:], 1)]


def _hit(section: bytes, number: int, subject: str) -> Hit:
    lines = section.strip().splitlines()
    named = _NAME.match(lines[0][1:].decode("ascii", "replace")) if lines and lines[0].startswith(b">") else None
    sums = _SUMS.search(section)
    texts: dict[bytes, list[bytes]] = {b"Q": [], b"T": []}
    starts: dict[bytes, int] = {}
    for line in lines[1:]:
        found = _ALIGNED.match(line)
        # Lines of secondary structure have no numbers.
        if found and found[2] != b"Consensus":
            texts[found[1]].append(found[4])
            starts.setdefault(found[1], int(found[3]) - 1)
    query, template = (b"".join(texts[side]).decode("ascii", "replace").upper() for side in (b"Q", b"T"))
    if not named or not sums or not query or len(query) != len(template) or min(starts.values()) < 0:
        raise InputRefusedError(f"hit {number} in it is damaged", subject=subject, remedy=_REMEDY)
    return Hit(named[1].lower(), named[2], float(sums[1]), query, template, starts[b"Q"], starts[b"T"])
