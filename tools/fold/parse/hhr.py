"""Templates in hhr (HHsearch): which residues of which chain are aligned to which of the query, and how surely."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sartor.share.errors import InputRefusedError

_SUMMARY = re.compile(rb"Probab=(\S+).*Sum_probs=(\S+)")
_ALIGNED = re.compile(rb"^(Q|T) (\S+)\s+(\d+) (\S+)\s+\d+ \(\d+\)\s*$")
_SKIPPED = (b"ss_pred", b"ss_conf", b"ss_dssp", b"Consensus")


@dataclass(frozen=True)
class Hit:
    """One template: its PDB code and chain, and aligned letters of query and template from where each begins."""

    code: str
    chain: str
    sum_probs: float
    query: str
    template: str
    query_start: int
    template_start: int

    def pairs(self) -> list[tuple[int, int]]:
        """Return the aligned residues: of the query, and of the template's letters without gaps, both from 0."""
        out, at, other = [], self.query_start, 0
        for q, t in zip(self.query, self.template, strict=True):
            if q != "-" and t != "-":
                out.append((at, other))
            at, other = at + (q != "-"), other + (t != "-")
        return out

    @property
    def letters(self) -> str:
        """The template's letters that take part, without gaps."""
        return self.template.replace("-", "")


def parse_hhr(data: bytes, subject: str) -> list[Hit]:
    """Parse an hhr file into its hits, the best first; raises InputRefusedError for what is none."""
    if not data.startswith(b"Query"):
        raise InputRefusedError("it is not hhr", subject=subject, remedy="Give what HHsearch writes with -o")
    sections = re.split(rb"(?m)^No \d+\s*$", data)[1:]
    return [_hit(section, number + 1, subject) for number, section in enumerate(sections)]


def _hit(section: bytes, number: int, subject: str) -> Hit:
    lines = section.strip().splitlines()
    summary = _SUMMARY.search(section)
    name = lines[0][1:].split()[0].decode("ascii", "replace") if lines and lines[0].startswith(b">") else ""
    code, _, chain = name.partition("_")
    texts: dict[bytes, list[str]] = {b"Q": [], b"T": []}
    starts: dict[bytes, int] = {}
    for line in lines[1:]:
        found = _ALIGNED.match(line)
        if found and not found[2].startswith(_SKIPPED):
            texts[found[1]].append(found[4].decode("ascii", "replace"))
            starts.setdefault(found[1], int(found[3]) - 1)
    query, template = "".join(texts[b"Q"]), "".join(texts[b"T"])
    if summary is None or not chain or not query or len(query) != len(template):
        raise InputRefusedError(f"hit {number} in it is damaged", subject=subject, remedy="Run HHsearch again")
    return Hit(code.lower(), chain, float(summary[2]), query.upper(), template.upper(), starts[b"Q"], starts[b"T"])
