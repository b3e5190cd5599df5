"""Every loss against a slow and obvious reference in float64."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.kits.fold_kit import as_double, compact_sample, double_model, random_atoms, random_rigid, smallest_config
from torch import Tensor

from sartor.tools.fold import residues, stereochemistry
from sartor.tools.fold.features import expand
from sartor.tools.fold.geometry.atoms import atom14_truth
from sartor.tools.fold.geometry.rigid import from_7
from sartor.tools.fold.losses.chi import angle_norm, chi_error
from sartor.tools.fold.losses.distogram import distogram_loss
from sartor.tools.fold.losses.fape import backbone_fape, sidechain_fape
from sartor.tools.fold.losses.lddt import lddt_ca, plddt_loss
from sartor.tools.fold.losses.masked_msa import masked_msa_loss
from sartor.tools.fold.losses.rename import rename
from sartor.tools.fold.losses.resolved import resolved_loss
from sartor.tools.fold.losses.tm import tm_loss
from sartor.tools.fold.losses.total import loss
from sartor.tools.fold.losses.violation import find_violations, violation_loss
from sartor.tools.fold.model.config import LossConfig

N = 9
Batch = dict[str, Tensor]


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Return two samples, without the recycling dimension."""
    expanded = as_double(expand(compact_sample(length=N, recycles=1, samples=2), smallest_config()))
    return {name: value[..., -1] for name, value in expanded.items()}


@pytest.fixture(scope="module")
def atoms() -> Tensor:
    return 4 * torch.randn(2, N, 14, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def agree(found: Tensor, expected: list[float], limit: float = 1e-9) -> bool:
    return torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=limit, atol=limit)


def log_softmax(logits: Tensor, target: int) -> float:
    return float(logits[target]) - math.log(sum(math.exp(x) for x in logits.tolist()))


def seen(frame: np.ndarray, point: np.ndarray) -> np.ndarray:
    return frame[:3, :3].T @ (point - frame[:3, 3])


def fape_by_loops(
    frames: np.ndarray,
    true_frames: np.ndarray,
    frame_mask: np.ndarray,
    points: np.ndarray,
    true_points: np.ndarray,
    point_mask: np.ndarray,
    clamp: float,
) -> float:
    total = 0.0
    for f, p in itertools.product(range(len(frames)), range(len(points))):
        difference = seen(frames[f], points[p]) - seen(true_frames[f], true_points[p])
        total += frame_mask[f] * point_mask[p] * min(math.sqrt(difference @ difference + 1e-4), clamp) / 10
    return float(total / (1e-4 + frame_mask.sum()) / (1e-4 + point_mask.sum()))


@pytest.mark.parametrize("clamped", [1.0, 0.0])
def test_backbone_fape(batch: Batch, clamped: float) -> None:
    rigid = random_rigid(2, 3, N)
    quaternion = noise(2, 3, N, 4)
    quaternion = quaternion / quaternion.norm(dim=-1, keepdim=True)
    tensor7 = torch.cat([quaternion, rigid.translation], dim=-1)
    frames, truth = from_7(tensor7).to_4x4().numpy(), batch["backbone_rigid_tensor"].numpy()
    mask = batch["backbone_rigid_mask"]
    assert 0 < mask.sum() < mask.numel()
    limit = 10.0 if clamped else math.inf
    expected = [
        np.mean(
            [
                fape_by_loops(f, truth[b], mask[b].numpy(), f[:, :3, 3], truth[b][:, :3, 3], mask[b].numpy(), limit)
                for f in frames[b]
            ]
        )
        for b in range(2)
    ]
    found = backbone_fape(tensor7, batch["backbone_rigid_tensor"], mask, torch.full((2,), clamped).double())
    assert agree(found, [float(x) for x in expected])


def test_sidechain_fape(batch: Batch, atoms: Tensor) -> None:
    frames, renamed = random_rigid(2, N, 8, seed=3).to_4x4(), rename(batch, atoms)
    expected = []
    for b in range(2):
        chosen = [
            batch["rigidgroups_alt_gt_frames" if renamed.swapped[b, i] else "rigidgroups_gt_frames"][b, i]
            for i in range(N)
        ]
        expected.append(
            fape_by_loops(
                frames[b].flatten(0, 1).numpy(),
                torch.stack(chosen).flatten(0, 1).numpy(),
                batch["rigidgroups_gt_exists"][b].flatten().numpy(),
                atoms[b].flatten(0, 1).numpy(),
                renamed.positions[b].flatten(0, 1).numpy(),
                renamed.exists[b].flatten().numpy(),
                10.0,
            )
        )
    assert agree(sidechain_fape(frames, atoms, batch, renamed), expected)


def test_renaming() -> None:
    """A prediction with exchanged names exchanges them in the truth."""
    aatype = torch.tensor([[residues.INDEX[name] for name in ("ASP", "ALA", "GLU", "PHE", "TYR", "LYS")]])
    truth = atom14_truth(aatype, *random_atoms(aatype))
    same = rename(truth, truth["atom14_gt_positions"])
    assert not same.swapped.any()
    mirrored = rename(truth, truth["atom14_alt_gt_positions"])
    assert mirrored.swapped[0].tolist() == [1, 0, 1, 1, 1, 0]
    assert torch.equal(mirrored.positions, truth["atom14_alt_gt_positions"])
    half = torch.cat([truth["atom14_alt_gt_positions"][:, :1], truth["atom14_gt_positions"][:, 1:]], dim=1)
    assert rename(truth, half).swapped[0].tolist() == [1, 0, 0, 0, 0, 0]


def test_chi(batch: Batch) -> None:
    raw = noise(2, 2, N, 7, 2)
    angles = raw / raw.norm(dim=-1, keepdim=True)
    expected_chi, expected_norm = [], []
    for b in range(2):
        total = count = norm = residues_kept = 0.0
        for k, i in itertools.product(range(2), range(N)):
            keep = float(batch["seq_mask"][b, i])
            for a in range(7):
                norm += keep * abs(math.sqrt(float(raw[b, k, i, a].square().sum()) + 1e-8) - 1)
                residues_kept += keep
            for c in range(4):
                mask = float(batch["chi_mask"][b, i, c])
                truth, found = batch["chi_angles_sin_cos"][b, i, c], angles[b, k, i, 3 + c]
                error = float((truth - found).square().sum())
                if residues.chi_pi_periodic()[int(batch["aatype"][b, i]), c]:
                    error = min(error, float((truth + found).square().sum()))
                total, count = total + mask * error, count + mask
        expected_chi.append(total / (count + 1e-4))
        expected_norm.append(norm / (residues_kept + 1e-4))
    assert agree(chi_error(angles, batch["chi_angles_sin_cos"], batch["chi_mask"], batch["aatype"]), expected_chi)
    assert agree(angle_norm(raw, batch["seq_mask"]), expected_norm)


def test_distogram(batch: Batch) -> None:
    logits, beta, mask = noise(2, N, N, 64), batch["pseudo_beta"], batch["pseudo_beta_mask"]
    edges = [2.3125 + k * (21.6875 - 2.3125) / 62 for k in range(63)]
    expected = []
    for b in range(2):
        total = count = 0.0
        for i, j in itertools.product(range(N), range(N)):
            keep = float(mask[b, i] * mask[b, j])
            place = sum(math.dist(beta[b, i], beta[b, j]) > edge for edge in edges)
            total, count = total - keep * log_softmax(logits[b, i, j], place), count + keep
        expected.append(total / count)
    assert agree(distogram_loss(logits, beta, mask), expected)


def test_masked_msa(batch: Batch) -> None:
    truth, mask = batch["true_msa"], batch["bert_mask"]
    logits = noise(*truth.shape, 23)
    expected = []
    for b in range(2):
        places = [tuple(place) for place in mask[b].nonzero().tolist()]
        expected.append(-sum(log_softmax(logits[b][p], int(truth[b][p])) for p in places) / len(places))
    assert agree(masked_msa_loss(logits, truth, mask), expected, 1e-7)


def lddt_by_loops(predicted: Tensor, truth: Tensor, mask: Tensor) -> tuple[list[float], float]:
    """Return the score of every residue, and of all."""
    kept, counted = [0.0] * N, [0] * N
    for i, j in itertools.permutations(range(N), 2):
        distance = math.dist(truth[i], truth[j])
        if mask[i] and mask[j] and distance < 15:
            error = abs(distance - math.dist(predicted[i], predicted[j]))
            kept[i] += sum(error < threshold for threshold in (0.5, 1, 2, 4)) / 4
            counted[i] += 1
    return [k / c if c else 1.0 for k, c in zip(kept, counted, strict=True)], sum(kept) / max(sum(counted), 1)


def test_lddt_and_its_prediction(batch: Batch) -> None:
    truth, mask = batch["all_atom_positions"], batch["all_atom_mask"]
    predicted, logits = truth + noise(*truth.shape), noise(2, N, 50)
    ca = residues.ATOM37["CA"]
    whole, losses = [], []
    for b in range(2):
        scores, score = lddt_by_loops(predicted[b, :, ca], truth[b, :, ca], mask[b, :, ca])
        whole.append(score)
        kept = [i for i in range(N) if mask[b, i, ca]]
        bins = [min(int((scores[i] + 1e-12) * 50), 49) for i in range(N)]
        losses.append(-sum(log_softmax(logits[b, i], bins[i]) for i in kept) / len(kept))
    assert 0 < min(whole) < 1
    assert agree(lddt_ca(predicted, truth, mask), whole, 1e-8)
    assert agree(plddt_loss(logits, predicted, truth, mask), losses, 1e-7)


def test_resolved(batch: Batch) -> None:
    exists, mask = batch["atom37_atom_exists"], batch["all_atom_mask"]
    logits = noise(2, N, 37)
    expected = []
    for b in range(2):
        places = [tuple(place) for place in exists[b].nonzero().tolist()]
        errors = [math.log1p(math.exp(-float(logits[b][p]) if mask[b][p] else float(logits[b][p]))) for p in places]
        expected.append(sum(errors) / len(places))
    assert agree(resolved_loss(logits, exists, mask), expected)


def test_tm(batch: Batch) -> None:
    logits, mask = noise(2, N, N, 64), batch["backbone_rigid_mask"]
    quaternion = noise(2, N, 4, seed=1)
    tensor7 = torch.cat([quaternion / quaternion.norm(dim=-1, keepdim=True), 8 * noise(2, N, 3, seed=2)], dim=-1)
    frames, truth = from_7(tensor7).to_4x4().numpy(), batch["backbone_rigid_tensor"].numpy()
    edges = [k * 31 / 62 for k in range(63)]
    expected = []
    for b in range(2):
        total = count = 0.0
        for i, j in itertools.product(range(N), range(N)):
            keep = float(mask[b, i] * mask[b, j])
            apart = math.dist(seen(frames[b, i], frames[b, j, :3, 3]), seen(truth[b, i], truth[b, j, :3, 3]))
            place = sum(apart > edge for edge in edges)
            total, count = total - keep * log_softmax(logits[b, i, j], place), count + keep
        expected.append(total / count)
    found = tm_loss(logits, tensor7, batch["backbone_rigid_tensor"], mask, 31.0)
    assert agree(found, expected, 1e-6)


def test_clashes(batch: Batch, atoms: Tensor) -> None:
    """Equation 46 by loops: between residues with vdW radii, within them with bonds and angles."""
    found = find_violations(batch, atoms, 12.0, 1.5)
    low, high = stereochemistry.distance_bounds(1.5, 12.0)
    for b in range(2):
        between, within = np.zeros((N, 14)), np.zeros((N, 14))
        kinds = batch["aatype"][b].tolist()
        names = [residues.atoms_of(residues.NAMES[kind]) for kind in kinds]
        for i, j in itertools.combinations(range(N), 2):
            for (p, one), (q, other) in itertools.product(enumerate(names[i]), enumerate(names[j])):
                if (j == i + 1 and (one, other) == ("C", "N")) or p == q == residues.atoms_of("CYS").index("SG"):
                    continue
                gap = (
                    residues.RADII[one[0]] + residues.RADII[other[0]] - 1.5 - math.dist(atoms[b, i, p], atoms[b, j, q])
                )
                between[i, p] += max(gap, 0)
                between[j, q] += max(gap, 0)
        for i in range(N):
            for p, q in itertools.permutations(range(len(names[i])), 2):
                apart = math.dist(atoms[b, i, p], atoms[b, i, q])
                excess = max(low[kinds[i], p, q] - apart, 0) + max(apart - high[kinds[i], p, q], 0)
                within[i, p] += excess
                within[i, q] += excess
        assert np.allclose(found.between.by_atom[b], between, atol=1e-6)
        assert np.allclose(found.within.by_atom[b], within, atol=1e-6)
        assert np.array_equal(found.between.violates[b], between > 0)


def test_ideal_chain_violates_nothing() -> None:
    """Two residues at an ideal peptide bond; pulled apart, bond and angles are judged by their formulas."""
    aatype = torch.tensor([[residues.INDEX["GLY"]] * 2])
    atoms = torch.zeros(1, 2, 14, 3, dtype=torch.float64)
    first = torch.tensor([[-0.572, 1.337, 0], [0, 0, 0], [1.517, 0, 0], [2.14, -1.06, 0]])
    angle = math.acos(-0.4473)
    n = first[2] + 1.329 * torch.tensor([-math.cos(angle), math.sin(angle), 0.0])
    turned = math.pi - angle - (math.pi - math.acos(-0.5203))
    ca = n + 1.456 * torch.tensor([math.cos(turned), math.sin(turned), 0.0])
    atoms[0, 0, :4], atoms[0, 1, 0], atoms[0, 1, 1] = first, n, ca
    exists = torch.zeros(1, 2, 14, dtype=torch.float64)
    exists[0, 0, :4], exists[0, 1, :2] = 1, 1
    index = torch.from_numpy(residues.atom14_to_atom37())[aatype]
    sample = {"atom14_atom_exists": exists, "aatype": aatype, "residx_atom14_to_atom37": index}
    sample["residue_index"] = torch.tensor([[4, 5]])
    found = find_violations(sample, atoms, 12.0, 1.5)
    assert (found.bonds.c_n, found.bonds.ca_c_n, found.bonds.c_n_ca) == (0, 0, 0)
    assert not found.bonds.violates.any()
    atoms[0, 1] += 1.0 * (n - first[2]).double() / 1.329
    pulled = find_violations(sample, atoms, 12.0, 1.5)
    assert float(pulled.bonds.c_n) == pytest.approx(1.0 - 12 * 0.014, abs=1e-4)
    assert float(pulled.bonds.by_residue[0, 0]) == pytest.approx(0.5 * (1.0 - 12 * 0.014), abs=1e-4)
    assert pulled.bonds.violates[0].tolist() == [1, 1]
    sample["residue_index"] = torch.tensor([[4, 6]])
    assert float(find_violations(sample, atoms, 12.0, 1.5).bonds.c_n) == 0


def test_violation_loss_is_a_sum_of_means(batch: Batch, atoms: Tensor) -> None:
    found, exists = find_violations(batch, atoms, 12.0, 1.5), batch["atom14_atom_exists"]
    clash = (found.between.by_atom + found.within.by_atom).sum(dim=(1, 2)) / exists.sum(dim=(1, 2))
    expected = found.bonds.c_n + found.bonds.ca_c_n + found.bonds.c_n_ca + clash
    assert torch.allclose(violation_loss(found, exists), expected)


@pytest.fixture(scope="module")
def run() -> tuple[Batch, Batch]:
    config = smallest_config()
    inputs = as_double(expand(compact_sample(length=N, recycles=1, samples=2), config))
    with torch.no_grad():
        return double_model(config)(inputs), inputs


def test_total_is_weighted_and_scaled(run: tuple[Batch, Batch]) -> None:
    outputs, inputs = run
    config = LossConfig.finetuning()
    total, terms = loss(outputs, inputs, config)
    weights = {"fape": 1.0, "supervised_chi": 1.0, "distogram": 0.3, "masked_msa": 2.0, "plddt_loss": 0.01}
    weights |= {"experimentally_resolved": 0.01, "violation": 1.0, "tm": 0.1}
    expected = sum(weight * terms[name] for name, weight in weights.items())
    assert torch.allclose(terms["weighted_total_loss"], expected)
    assert torch.allclose(total, (expected * math.sqrt(N - 1)).mean())
    assert torch.allclose(loss(outputs, inputs, replace(config, crop_size=4))[0], (expected * 2).mean())


def test_only_the_loss_of_violations_is_left_out_at_weight_zero(run: tuple[Batch, Batch]) -> None:
    outputs, inputs = run
    everything = loss(outputs, inputs, LossConfig.finetuning())[1].keys()
    zero = LossConfig(fape=0, supervised_chi=0, distogram=0, masked_msa=0, plddt=0)
    assert loss(outputs, inputs, zero)[1].keys() == everything - {"violation"}


def test_poor_resolution_silences_confidences(run: tuple[Batch, Batch]) -> None:
    outputs, inputs = run
    poor = {**inputs, "resolution": torch.tensor([[5.0], [2.0]], dtype=torch.float64)}
    _, before = loss(outputs, inputs, LossConfig())
    _, after = loss(outputs, poor, LossConfig())
    for name in ("plddt_loss", "experimentally_resolved", "tm"):
        assert after[name][0] == 0
        assert after[name][1] == before[name][1] > 0


def test_a_loss_that_is_not_finite_stays_visible(run: tuple[Batch, Batch]) -> None:
    outputs, inputs = run
    broken = {**outputs, "distogram_logits": outputs["distogram_logits"].clone()}
    broken["distogram_logits"][1] = math.nan
    total, terms = loss(broken, inputs, LossConfig())
    assert total.isnan()
    assert terms["distogram"].isnan().tolist() == [False, True]
    assert terms["scaled_weighted_total_loss"].isnan().tolist() == [False, True]
