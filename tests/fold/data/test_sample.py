"""Samples: the same as by one-hot matrices, a function of seed, step and place alone, padded and masked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.kits.protein_kit import chain_of

from sartor.tools.fold.alphabet import RESIDUES
from sartor.tools.fold.data.config import DataConfig
from sartor.tools.fold.data.profile import profile_of
from sartor.tools.fold.data.reference import sample_reference
from sartor.tools.fold.data.sample import recycles_of, sample
from sartor.tools.fold.parse.alignment import Deletions
from sartor.tools.fold.store import Chain, Templates

SMALL = DataConfig(crop_size=24, clusters=6, extra=10, templates=2, deleted_blocks=2)
CONTRACT = {
    "aatype": ("uint8", "N"), "residue_index": ("int32", "N"), "seq_mask": ("uint8", "N"), "seq_length": ("int32", ""),
    "positions": ("float32", "N37"), "atom_mask": ("uint8", "Na"), "resolution": ("float32", ""),
    "is_distillation": ("float32", ""), "use_clamped_fape": ("float32", ""), "template_aatype": ("uint8", "TN"),
    "template_positions": ("float32", "TN37"), "template_atom_mask": ("uint8", "TNa"),
    "template_sum_probs": ("float32", "T1"), "template_mask": ("uint8", "T"), "msa": ("uint8", "RSN"),
    "true_msa": ("uint8", "RSN"), "bert_mask": ("uint8", "RSN"), "deletions": ("uint16", "RSN"),
    "cluster_profile": ("float32", "RSNc"), "cluster_deletion_mean": ("float32", "RSN"),
    "msa_row_mask": ("uint8", "RS"), "extra_msa": ("uint8", "REN"),
    "extra_deletions": ("uint16", "REN"), "extra_row_mask": ("uint8", "RE"),
}  # fmt: skip


def require_equal(chain: Chain, config: DataConfig, *drawn: int) -> None:
    """Compare a sample with its plain form, bit by bit."""
    ours, plain = sample(chain, config, *drawn), sample_reference(chain, config, *drawn)
    assert ours.keys() == plain.keys()
    for name, array in plain.items():
        assert ours[name].dtype == array.dtype, name
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


@pytest.mark.parametrize("depth", [1, 2, 5, 6, 7, 63, 1000])
@pytest.mark.parametrize("length", [1, 24, 63])
def test_sample_is_that_of_one_hot_matrices(depth: int, length: int) -> None:
    for step in range(3):
        require_equal(chain_of(depth, length, seed=depth), SMALL, 7, step, 1)


@pytest.mark.parametrize(
    "changed",
    [
        {"unknown": 0.3},
        {"clamped": 0.0},
        {"templates": 0},
        {"extra": 0},
        {"masked": 1.0},
        {"deleted_blocks": 0},
        {"deleted_share": 1.0},
        {"masked_uniform": 0.0, "masked_profile": 1.0, "masked_same": 0.0},
        {"masked_uniform": 1.0, "masked_profile": 0.0, "masked_same": 0.0},
        {"masked_profile": 0.0},
    ],
)
def test_choices_are_those_of_the_plain_form(changed: dict[str, float]) -> None:
    for index in range(3):
        require_equal(chain_of(40, 50), replace(SMALL, **changed), 3, 5, index)  # type: ignore[arg-type]


def test_shapes_and_types_are_those_of_the_contract() -> None:
    found = sample(chain_of(40, 50), SMALL, 1, 2, 3, recycles=2)
    sizes = {"N": 24, "S": 6, "E": 10, "T": 2, "R": 3, "1": 1, "a": 37, "c": 23}
    shapes = {name: tuple(sizes[axis] for axis in axes.replace("37", "")) + ((37, 3) if "37" in axes else ())
              for name, (_, axes) in CONTRACT.items()}  # fmt: skip
    assert {name: array.shape for name, array in found.items()} == shapes
    assert {name: array.dtype.name for name, array in found.items()} == {k: t for k, (t, _) in CONTRACT.items()}


def test_what_is_missing_is_zero_and_masked() -> None:
    found = sample(chain_of(3, 10, templates=1), replace(SMALL, deleted_blocks=0), 1, 2, 3, recycles=0)
    assert found["seq_mask"].tolist() == [1] * 10 + [0] * 14
    assert found["msa_row_mask"].tolist() == [[1] * 3 + [0] * 3]
    assert found["extra_row_mask"].tolist() == [[0] * 10]
    for name in ("aatype", "residue_index", "atom_mask", "positions"):
        assert not found[name][10:].any(), name
    for name in ("msa", "true_msa", "bert_mask", "deletions", "cluster_profile", "cluster_deletion_mean"):
        assert not found[name][:, :, 10:].any(), name
        assert not found[name][:, 3:].any(), name


def test_a_sample_depends_on_seed_step_and_place_alone() -> None:
    chain, other = chain_of(40, 50), chain_of(9, 70)
    first = sample(chain, SMALL, 1, 2, 3)
    sample(other, SMALL, 5, 6, 7)
    again = sample(chain, SMALL, 1, 2, 3)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    for drawn in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        changed = sample(chain, SMALL, *drawn, recycles=len(first["msa"]) - 1)
        assert not np.array_equal(first["msa"], changed["msa"]), drawn


def test_iterations_share_a_crop_and_differ_in_rows() -> None:
    found = sample(chain_of(60, 50), SMALL, 1, 2, 3, recycles=3)
    assert (found["true_msa"][:, 0] == found["true_msa"][0, 0]).all()
    assert (found["true_msa"][0, 0] == found["aatype"]).all()
    assert len({found["true_msa"][number].tobytes() for number in range(4)}) == 4


def test_recycles_are_the_same_for_all_samples_of_a_step_and_all_are_drawn_alike() -> None:
    counts = np.bincount([recycles_of(SMALL, 3, step) for step in range(4000)], minlength=4)
    assert len(counts) == 4
    assert abs(counts - 1000).max() < 120
    step = next(step for step in range(100) if recycles_of(SMALL, 3, step) == 2)
    assert {len(sample(chain_of(8, 12), SMALL, 3, step, index)["msa"]) for index in range(5)} == {3}


def test_the_crop_starts_anywhere_or_rather_early_where_the_loss_is_not_clamped() -> None:
    chain = chain_of(1, 34)
    starts = {}
    for clamped in (0.0, 1.0):
        config = replace(SMALL, clamped=clamped)
        found = [sample(chain, config, 1, step, 0, recycles=0) for step in range(2000)]
        assert {float(one["use_clamped_fape"]) for one in found} == {clamped}
        starts[clamped] = np.bincount([one["residue_index"][0] for one in found], minlength=11) / 2000
    # With room n for the start: uniform over 0..n, or over 0..n-x with x uniform over 0..n (supplementary 1.2.8).
    biased = np.array([sum(1 / (11 - x) for x in range(11 - start)) / 11 for start in range(11)])
    assert abs(starts[1.0] - 1 / 11).max() < 0.025
    assert abs(starts[0.0] - biased).max() < 0.025


def test_how_many_templates_are_seen_follows_the_paper() -> None:
    chain = chain_of(1, 12, templates=10)
    config = replace(SMALL, templates=4, template_pool=8)
    found = [sample(chain, config, 1, step, 0, recycles=0) for step in range(1800)]
    counts = np.bincount([int(one["template_mask"].sum()) for one in found], minlength=5) / 1800
    # min(Uniform[0, 8], 4).
    assert abs(counts - np.array([1, 1, 1, 1, 5]) / 9).max() < 0.035
    surest = set(chain.templates.sum_probs[:8].tolist())
    seen = {value for one in found for value in one["template_sum_probs"].ravel().tolist() if value}
    assert seen == surest


@pytest.fixture(scope="module")
def real(data: Path) -> Chain:
    with np.load(data / "fold" / "8d27_A.npz") as file:
        arrays = {name: file[name] for name in file.files}
    # The file has the order of HHblits.
    to_ours = np.array([f"{RESIDUES}X-".index(letter) for letter in "ACDEFGHIKLMNPQRSTVWYX-"], np.uint8)
    msa = to_ours[arrays["msa"]]
    order = np.lexsort((arrays["deletion_col"], arrays["deletion_row"]))
    cut = Deletions(*(arrays[f"deletion_{name}"][order] for name in ("row", "col", "count")))
    templates = Templates(
        tuple(map(str, range(20))), arrays["template_aatype"], arrays["template_positions"],
        arrays["template_mask"].astype(bool), arrays["template_sum_probs"][:, 0],
    )  # fmt: skip
    return Chain(
        "8d27_A", arrays["aatype"].astype(np.uint8), msa, cut, profile_of(msa), templates, arrays["positions"],
        arrays["mask"].astype(bool), 2.25, "2022-07-06",
    )  # fmt: skip


@pytest.mark.parametrize("config", [DataConfig.initial_training(), DataConfig(clusters=124, deleted_blocks=0)])
def test_a_real_sample_is_that_of_one_hot_matrices(real: Chain, config: DataConfig) -> None:
    ours, plain = (make(real, config, 0, 1, 2, 0) for make in (sample, sample_reference))
    for name, array in plain.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)
