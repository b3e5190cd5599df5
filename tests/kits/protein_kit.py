"""Small proteins as the files that archives and aligners write, and chains as a shard has them, all made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np

from sartor.tools.fold.data.profile import profile_of
from sartor.tools.fold.parse.alignment import sparse
from sartor.tools.fold.store import Chain, Templates

ATOMS = ("N", "CA", "C", "O", "CB")
_SITE = (
    "group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id",
    "label_entity_id", "label_seq_id", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy", "auth_seq_id", "auth_asym_id",
    "pdbx_PDB_model_num",
)  # fmt: skip


@dataclass(frozen=True)
class Atom:
    """An atom of a residue that differs from the common ones."""

    name: str
    place: tuple[float, float, float]
    alternative: str = "."
    occupancy: float = 1.0


@dataclass(frozen=True)
class Polymer:
    """A chain: names by authors and archive, residues by three letters, those not seen, and atoms of some of them."""

    author: str
    residues: tuple[str, ...]
    label: str = ""
    unseen: tuple[int, ...] = ()
    atoms: Mapping[int, tuple[Atom, ...]] | None = None
    kind: str = "polypeptide(L)"


def residues_of(sequence: str) -> tuple[str, ...]:
    """Return the three-letter names of a sequence."""
    return tuple(gemmi.expand_one_letter_sequence(sequence, gemmi.ResidueKind.AA))


def place_of(number: int, atom: int, model: int = 1) -> tuple[float, float, float]:
    """Return where an atom of a residue (from 0) is."""
    return 3.8 * number, 1.5 * atom, 10.0 * (model - 1)


def mmcif(
    code: str, polymers: Sequence[Polymer], *, resolution: str = "2.00", released: str = "2020-02-01", models: int = 1,
    sequences: bool = True,
) -> str:  # fmt: skip
    """Return an mmCIF file; without sequences it tells only what was seen."""
    entities = [(str(number), polymer) for number, polymer in enumerate(polymers, 1)]
    parts = [
        f"data_{code.upper()}",
        f"_entry.id {code.upper()}",
        f"_refine.ls_d_res_high {resolution}",
        _loop("_pdbx_audit_revision_history.", ("ordinal", "revision_date"), [("1", released), ("2", "2023-03-03")]),
        _loop("_entity.", ("id", "type"), [(number, "polymer") for number, _ in entities]),
        _loop("_entity_poly.", ("entity_id", "type"), [(number, f"'{one.kind}'") for number, one in entities]),
        _loop("_struct_asym.", ("id", "entity_id"), [(one.label or one.author, number) for number, one in entities]),
    ]
    if sequences:
        rows = [(n, str(place), name) for n, one in entities for place, name in enumerate(one.residues, 1)]
        parts.append(_loop("_entity_poly_seq.", ("entity_id", "num", "mon_id"), rows))
    sites = [site for model in range(1, models + 1) for number, one in entities for site in _sites(number, one, model)]
    numbered = [(kind, str(number), *rest) for number, (kind, *rest) in enumerate(sites, 1)]
    if numbered:
        parts.append(_loop("_atom_site.", _SITE, numbered))
    return "\n".join(parts) + "\n"


def _loop(category: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(["loop_", *(f"{category}{name}" for name in names), *map(" ".join, rows)])


def _sites(entity: str, polymer: Polymer, model: int) -> list[tuple[str, ...]]:
    """Return the atoms of a chain, without their numbers."""
    out = []
    for place, name in enumerate(polymer.residues):
        if place in polymer.unseen:
            continue
        common = tuple(Atom(atom, place_of(place, number, model)) for number, atom in enumerate(ATOMS))
        for atom in (polymer.atoms or {}).get(place, common):
            where = (f"{coordinate:.3f}" for coordinate in atom.place)
            label = polymer.label or polymer.author
            out.append(
                ("ATOM", atom.name[0], atom.name, atom.alternative, name, label, entity, str(place + 1), *where,
                 f"{atom.occupancy:.2f}", str(place + 101), polymer.author, str(model))
            )  # fmt: skip
    return out


def a3m(rows: Mapping[str, str]) -> bytes:
    """Return an alignment in a3m."""
    return "".join(f">{name}\n{row}\n" for name, row in rows.items()).encode()


def sto(rows: Mapping[str, str], block: int = 1000) -> bytes:
    """Return an alignment in Stockholm format, in blocks of so many columns."""
    length = len(next(iter(rows.values())))
    lines = ["# STOCKHOLM 1.0", "", "#=GS query DE something"]
    for start in range(0, length, block):
        lines += [f"{name:<20} {row[start : start + block]}" for name, row in rows.items()]
        lines += ["#=GC RF              " + "x" * min(block, length - start), ""]
    return "\n".join([*lines, "//", ""]).encode()


@dataclass(frozen=True)
class Hit:
    """A hit of HHsearch; starts are from 1."""

    name: str
    query: str
    template: str
    sum_probs: float = 50.0
    query_start: int = 1
    template_start: int = 1


def hhr(hits: Sequence[Hit], width: int = 80) -> bytes:
    """Return an hhr file as HHsearch lays it out, with lines of a width."""
    lines = ["Query         query", "Match_columns 100", "", " No Hit  Prob E-value", ""]
    for number, hit in enumerate(hits, 1):
        lines += [f"No {number}", f">{hit.name} some protein; with {{words}}"]
        lines += [f"Probab=99.9  E-value=1e-9  Score=100.0  Aligned_cols=9  Sum_probs={hit.sum_probs}  Template_Neff=1"]
        at, other = hit.query_start, hit.template_start
        for start in range(0, len(hit.query), width):
            query, template = hit.query[start : start + width], hit.template[start : start + width]
            ends = at + len(query.replace("-", "")) - 1, other + len(template.replace("-", "")) - 1
            lines += ["", f"Q ss_pred             {'h' * len(query)}"]
            lines += [f"Q query           {at:>4} {query} {ends[0]:>4} (100)"]
            lines += [f"Q Consensus       {at:>4} {'~' * len(query)} {ends[0]:>4} (100)"]
            lines += [f"                       {'|' * len(query)}"]
            lines += [f"T Consensus       {other:>4} {'~' * len(template)} {ends[1]:>4} (90)"]
            lines += [f"T {hit.name:<14}  {other:>4} {template} {ends[1]:>4} (90)"]
            lines += [f"T ss_dssp             {'H' * len(template)}", f"Confidence            {'9' * len(template)}"]
            at, other = ends[0] + 1, ends[1] + 1
    return "\n".join([*lines, "", "Done!", ""]).encode()


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write files by their paths below a folder, and return it."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def chain_of(
    depth: int, length: int, seed: int = 0, templates: int = 3, name: str = "1abc_A"
) -> Chain:  # fmt: skip
    """Return a chain with a random alignment, whose rows are alike enough to form clusters."""
    random = np.random.default_rng(seed)
    families = random.integers(0, 20, (4, length), np.uint8)
    msa = families[random.integers(0, 4, depth)]
    msa = np.where(random.random(msa.shape) < 0.3, random.integers(0, 22, msa.shape), msa).astype(np.uint8)
    msa[0] = np.minimum(msa[0], 20)
    cut = np.where(random.random(msa.shape) < 0.05, random.integers(1, 9, msa.shape), 0).astype(np.uint16)
    mask = random.random((length, 37)) < 0.3
    seen = random.random((templates, length, 37)) < 0.3
    shown = Templates(
        tuple(f"2x{number:02d}_A" for number in range(templates)),
        random.integers(0, 22, (templates, length), np.uint8),
        (random.normal(size=(templates, length, 37, 3)) * seen[..., None]).astype(np.float32),
        seen,
        np.linspace(90, 10, templates, dtype=np.float32),
    )
    positions = (random.normal(size=(length, 37, 3)) * mask[..., None]).astype(np.float32)
    return Chain(name, msa[0], msa, sparse(cut), profile_of(msa), shown, positions, mask, 2.5, "2020-02-01", 3)
