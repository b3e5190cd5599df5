"""Rigid transforms, torsions and frames in float64: round trips and invariance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.kits.fold_kit import random_atoms, random_rigid
from torch import Tensor

from sartor.tools.fold import residues
from sartor.tools.fold.geometry.atoms import atom14_truth, layout, pseudo_beta, pseudo_beta_mask
from sartor.tools.fold.geometry.frames import atom14_positions, frame_truth, torsion_frames
from sartor.tools.fold.geometry.rigid import (
    Rigid,
    from_4x4,
    from_7,
    from_three_points,
    normalise,
    product,
    quaternion_product,
    quaternion_rotation,
)
from sartor.tools.fold.geometry.torsions import torsions

ALL = torch.arange(20)


def close(a: Tensor, b: Tensor, limit: float = 1e-12) -> bool:
    return torch.allclose(a, b, rtol=0, atol=limit)


@pytest.mark.parametrize("shape", [(), (1,), (63,), (2, 0), (3, 4)])
def test_transforms_undo_each_other(shape: tuple[int, ...]) -> None:
    rigid, points = random_rigid(*shape), torch.randn(*shape, 3, dtype=torch.float64)
    assert close(rigid.invert_apply(rigid.apply(points)), points)
    assert close(rigid.invert().apply(rigid.apply(points)), points)
    assert close(rigid.compose(rigid.invert()).to_4x4(), torch.eye(4, dtype=torch.float64).expand(*shape, 4, 4))
    assert torch.equal(from_4x4(rigid.to_4x4()).apply(points), rigid.apply(points))


def test_composing_is_the_product_of_matrices() -> None:
    a, b = random_rigid(5, seed=1), random_rigid(5, seed=2)
    assert close(a.compose(b).to_4x4(), a.to_4x4() @ b.to_4x4())


def test_quaternions_are_rotations() -> None:
    p, q = (normalise(torch.randn(7, 4, dtype=torch.float64)) for _ in range(2))
    rotation = quaternion_rotation(p)
    assert close(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand(7, 3, 3))
    assert close(torch.linalg.det(rotation), torch.ones(7, dtype=torch.float64))
    assert close(quaternion_rotation(quaternion_product(p, q)), product(rotation, quaternion_rotation(q)))
    assert torch.equal(from_7(torch.cat([p, torch.zeros(7, 3)], dim=-1)).rotation, rotation)


def test_quarter_turn_about_x() -> None:
    half = math.sqrt(0.5)
    rotation = quaternion_rotation(torch.tensor([half, half, 0, 0], dtype=torch.float64))
    assert close(rotation @ torch.tensor([0, 1, 0], dtype=torch.float64), torch.tensor([0, 0, 1], dtype=torch.float64))


def test_frames_of_points_move_with_them() -> None:
    points, motion = torch.randn(3, 6, 3, dtype=torch.float64), random_rigid(seed=4)
    frames = from_three_points(*points, eps=0.0)
    moved = from_three_points(*motion.apply(points), eps=0.0)
    assert close(moved.to_4x4(), motion.compose(frames).to_4x4())
    local = frames.invert_apply(points)
    assert close(local[1], torch.zeros(6, 3, dtype=torch.float64))
    assert close(local[0, :, 1:], torch.zeros(6, 2, dtype=torch.float64))
    assert (local[0, :, 0] < 0).all()
    assert close(local[2, :, 2], torch.zeros(6, dtype=torch.float64))
    assert (local[2, :, 1] > 0).all()


def test_torsions_come_back_from_positions() -> None:
    """Positions built from torsions give these torsions, up to the third digit of ideal positions."""
    generator = torch.Generator().manual_seed(0)
    angles = torch.randn(20, 7, 2, generator=generator, dtype=torch.float64)
    angles = angles / angles.norm(dim=-1, keepdim=True)
    atoms = atom14_positions(torsion_frames(random_rigid(20), angles, ALL), ALL, torch.float64)
    index = torch.from_numpy(residues.atom37_to_atom14())[ALL]
    positions = torch.gather(atoms, -2, index[..., None].expand(20, 37, 3))
    mask = torch.from_numpy(residues.atom37_mask())[ALL].double()
    found = torsions(ALL, positions, mask)
    known = found["torsion_angles_mask"][:, 3:] > 0
    assert torch.equal(known.float(), torch.from_numpy(residues.chi_mask())[:20])
    assert (found["torsion_angles_sin_cos"] - angles)[:, 3:][known].abs().max() < 5e-3
    assert (found["torsion_angles_sin_cos"] - angles)[:, 2].abs().max() < 5e-3


def test_frames_come_back_from_positions() -> None:
    aatype = ALL[None]
    positions, mask = random_atoms(aatype, seed=5)
    truth = frame_truth(aatype, positions, mask)
    backbone = from_4x4(truth["rigidgroups_gt_frames"][..., 0, :, :])
    angles = torsions(aatype, positions, mask)["torsion_angles_sin_cos"]
    built = torsion_frames(backbone, angles, aatype).to_4x4()
    exists = truth["rigidgroups_gt_exists"] > 0
    assert exists[..., 1:3].sum() == 0
    assert (built - truth["rigidgroups_gt_frames"])[exists].abs().max() < 0.05


def test_torsions_and_distances_do_not_move() -> None:
    aatype = ALL[None]
    positions, mask = random_atoms(aatype)
    moved = random_rigid(seed=9).apply(positions)
    one, other = torsions(aatype, positions, mask), torsions(aatype, moved, mask)
    known = one["torsion_angles_mask"] > 0
    assert close(one["torsion_angles_sin_cos"][known], other["torsion_angles_sin_cos"][known], 1e-8)


def test_first_residue_has_no_omega_and_phi() -> None:
    positions, mask = random_atoms(ALL)
    known = torsions(ALL, positions, mask)["torsion_angles_mask"]
    assert known[0, :3].tolist() == [0, 0, 1]
    assert known[1, :3].tolist() == [1, 1, 1]


def test_exchanged_names() -> None:
    """Exchanged names turn the last torsion by pi, and its group; twice exchanged is as before."""
    for residue, pairs in residues.SWAPS.items():
        aatype = torch.tensor([residues.INDEX[residue]])
        positions, mask = random_atoms(aatype, seed=3)
        swapped = positions.clone()
        for pair in pairs:
            one, other = (residues.ATOM37[name] for name in pair)
            swapped[:, [one, other]] = positions[:, [other, one]]
        truth, exchanged = atom14_truth(aatype, positions, mask), atom14_truth(aatype, swapped, mask)
        assert torch.equal(truth["atom14_alt_gt_positions"], exchanged["atom14_gt_positions"])
        assert truth["atom14_atom_is_ambiguous"].sum() == 2 * len(pairs)
        alternative = frame_truth(aatype, positions, mask)["rigidgroups_alt_gt_frames"]
        last = 3 + len(residues.chi_atoms(residue))
        assert (alternative - frame_truth(aatype, swapped, mask)["rigidgroups_gt_frames"])[0, last].abs().max() < 0.05


def test_pseudo_beta_of_glycine_is_alpha() -> None:
    positions, mask = random_atoms(ALL)
    beta, alpha = residues.ATOM37["CB"], residues.ATOM37["CA"]
    glycine = residues.INDEX["GLY"]
    found = pseudo_beta(ALL, positions)
    assert torch.equal(found[glycine], positions[glycine, alpha])
    assert torch.equal(found[:glycine], positions[:glycine, beta])
    assert pseudo_beta_mask(ALL, mask).all()


def test_layouts_are_inverse() -> None:
    found = layout(torch.arange(21))
    there = torch.gather(found["residx_atom37_to_atom14"], -1, found["residx_atom14_to_atom37"])
    exists = found["atom14_atom_exists"] > 0
    assert torch.equal(there[exists], torch.arange(14).expand(21, 14)[exists])
    assert found["atom37_atom_exists"].sum(dim=-1).equal(found["atom14_atom_exists"].sum(dim=-1))
    assert not found["atom14_atom_exists"][20].any()


def test_tables_of_residues() -> None:
    counts = residues.atom14_mask().sum(axis=1).astype(int)
    assert counts.tolist() == [5, 11, 8, 8, 6, 9, 9, 4, 10, 8, 8, 9, 8, 11, 7, 6, 7, 14, 12, 7, 0]
    assert residues.chi_mask().sum(axis=1).astype(int).tolist() == [
        *[0, 4, 2, 2, 1, 3, 3, 0, 2, 2, 2, 4, 3, 2, 2, 1, 1, 2, 2, 1, 0]
    ]
    turns = residues.default_frames()[:20, :4, :3, :3].astype(np.float64)
    assert np.allclose(turns @ turns.transpose(0, 1, 3, 2), np.eye(3), atol=1e-6)


def test_one_frame_acts_on_many_points() -> None:
    rigid = random_rigid(2)
    points = torch.randn(2, 5, 3, dtype=torch.float64)
    expected = torch.stack([Rigid(rigid.rotation[k], rigid.translation[k]).apply(points[k]) for k in range(2)])
    assert torch.equal(rigid.unsqueeze(-1).apply(points), expected)
