"""The story of `sartor fold-predict`: weights and shards in, a structure with confidence for each chain out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import torch
from numpy.typing import NDArray

from sartor.share.artifact import make_folder, write_bytes
from sartor.share.console import progress
from sartor.tools.fold import residues
from sartor.tools.fold.inference import Predicted, accuracy, run_chain
from sartor.tools.fold.store import open_shards
from sartor.tools.fold.weights_file import open_model

Floats = NDArray[np.float32]

RECYCLES = 3


@dataclass(frozen=True)
class Options:
    """Weights, shards, the folder that structures go to, and how the model runs."""

    weights: str
    shards: str
    folder: Path
    recycles: int | None
    preset: str | None
    config: str | None
    device: str
    threads: int


@dataclass(frozen=True)
class Prediction:
    """A chain's file, its mean pLDDT (0 to 100), and its lDDT-Ca (0 to 1) to what is known, None without anything."""

    chain: str
    file: str
    plddt: float
    lddt_ca: float | None


def predict(options: Options) -> list[Prediction]:
    """Predict every chain and write it as `CHAIN.cif`; raises all errors that reading and writing do."""
    torch.set_num_threads(options.threads)
    shards = open_shards(options.shards)
    device = torch.device(options.device)
    model, config = open_model(options.weights, options.preset, options.config, device)
    recycles = RECYCLES if options.recycles is None else options.recycles
    make_folder(options.folder)
    made = []
    with progress("chains", len(shards)) as step:
        for position in range(len(shards)):
            found = run_chain(model, shards.load(position), config, device, recycles)
            file = f"{found.chain.name}.cif"
            write_bytes(as_mmcif(found).encode(), options.folder / file)
            reached = accuracy(found) if found.chain.mask.any() else None
            made.append(Prediction(found.chain.name, file, float(confidences(found).mean()), reached))
            step(1)
    return made


def as_data(found: list[Prediction]) -> dict[str, Any]:
    """Return the document of `sartor fold-predict --json`."""
    return {
        "chains": [
            {"chain": one.chain, "file": one.file, "plddt": round(one.plddt, 2), "lddt_ca": one.lddt_ca}
            for one in found
        ]
    }


def as_text(found: list[Prediction]) -> str:
    """Return a line for every chain."""
    return "\n".join(f"{one.file}  pLDDT {one.plddt:.1f}{_known(one.lddt_ca)}" for one in found)


def headline(found: list[Prediction]) -> str:
    """Return the line that says what was done."""
    known = [one.lddt_ca for one in found if one.lddt_ca is not None]
    mean = sum(one.plddt for one in found) / len(found)
    return f"{len(found)} chains, mean pLDDT {mean:.1f}{_known(sum(known) / len(known) if known else None)}"


def _known(lddt: float | None) -> str:
    return "" if lddt is None else f", lDDT-Ca {lddt:.3f}"


def confidences(found: Predicted) -> Floats:
    """Return the pLDDT of each residue, 0 to 100."""
    return np.asarray(found.outputs["plddt"][0, : found.chain.length].float().cpu())


def as_mmcif(found: Predicted) -> str:
    """Return an mmCIF file of one chain; the pLDDT of residues stands where experiments have B factors."""
    chain, length = found.chain, found.chain.length
    atoms = found.outputs["final_atom_positions"][0, :length].float().cpu().numpy()
    present = found.outputs["final_atom_mask"][0, :length].cpu().numpy() > 0
    structure = gemmi.Structure()
    structure.name = chain.name
    made = gemmi.Chain("A")
    names = [residues.NAMES[kind] if kind < len(residues.NAMES) else "UNK" for kind in chain.aatype.tolist()]
    for number, (name, plddt) in enumerate(zip(names, confidences(found), strict=True)):
        made.add_residue(_residue(name, number, atoms[number], present[number], float(plddt)))
    model = gemmi.Model(1)
    model.add_chain(made)
    structure.add_model(model)
    structure.setup_entities()
    structure.entities[0].full_sequence = names
    structure.assign_label_seq_id()
    return str(structure.make_mmcif_document().as_string())


def _residue(name: str, number: int, atoms: Floats, present: NDArray[np.bool_], plddt: float) -> gemmi.Residue:
    residue = gemmi.Residue()
    residue.name, residue.seqid = name, gemmi.SeqId(number + 1, " ")
    residue.entity_type = gemmi.EntityType.Polymer
    for place in np.flatnonzero(present):
        atom = gemmi.Atom()
        atom.name = residues.ATOMS37[place]
        atom.element, atom.b_iso = gemmi.Element(atom.name[0]), plddt
        atom.pos = gemmi.Position(*map(float, atoms[place]))
        residue.add_atom(atom)
    return residue
