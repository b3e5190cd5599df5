"""The story of `sartor fold-predict`: weights and shards in, a structure with confidence for each chain out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
import torch
from numpy.typing import NDArray

from sartor.share.artifact import write_bytes
from sartor.share.console import progress
from sartor.tools.fold import residues
from sartor.tools.fold.config import Config
from sartor.tools.fold.inference import Predicted, predict
from sartor.tools.fold.losses.lddt import lddt_ca
from sartor.tools.fold.model.alphafold import AlphaFold
from sartor.tools.fold.store import Shards

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """A chain's file, its mean pLDDT (0 to 100), and its lDDT-Ca (0 to 1) to what is known, if anything is."""

    chain: str
    path: str
    plddt: float
    lddt_ca: float | None


def predict_all(
    model: AlphaFold, shards: Shards, config: Config, folder: Path, device: torch.device, recycles: int
) -> Iterator[Prediction]:
    """Predict every chain and write it as `CHAIN.cif`; raises OutputError and WriteError."""
    model.eval()
    with progress("chains", len(shards)) as step:
        for position in range(len(shards)):
            found = predict(model, shards.load(position), config, device, recycles)
            path = folder / f"{found.chain.name}.cif"
            write_bytes(as_mmcif(found).encode(), path)
            known = bool(found.features["all_atom_mask"].any())
            accuracy = float(lddt_ca(found.outputs, found.features)) if known else None
            yield Prediction(found.chain.name, path.name, float(confidences(found).mean()), accuracy)
            step(1)


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
