"""Training features: each transform against a slow form with one-hot matrices, and what a whole sample must hold."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sartor.tools.fold.alphabet import CLASSES, GAP, MASKED, encode
from sartor.tools.fold.data.clustering import nearest, summarise
from sartor.tools.fold.data.config import DataConfig
from sartor.tools.fold.data.crop import crop_of, draw_templates
from sartor.tools.fold.data.deletions import of_clusters, of_rows
from sartor.tools.fold.data.masking import make_unknown, mask_rows
from sartor.tools.fold.data.random import below, key_of, shuffled, uniform
from sartor.tools.fold.data.rows import block_deletion, draw_rows
from sartor.tools.fold.data.sample import recycles_of, sample
from sartor.tools.fold.parse.alignment import Alignment, sparse
from sartor.tools.fold.store import Chain, Templates, profile_of

Bytes = NDArray[np.uint8]


def chain(depth: int, length: int, templates: int = 3, seed: int = 0) -> Chain:
    """Make a chain with an alignment at random, a third of it gaps."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 22, (depth, length)).astype(np.uint8)
    rows[rng.random(rows.shape) < 0.3] = GAP
    rows[0] = rng.integers(0, 20, length)
    cut = np.where(rng.random(rows.shape) < 0.05, rng.integers(1, 9, rows.shape), 0).astype(np.uint16)
    known = Templates(
        rng.integers(0, 22, (templates, length)).astype(np.uint8),
        rng.standard_normal((templates, length, 37, 3)).astype(np.float32),
        rng.random((templates, length, 37)) < 0.5,
        rng.random(templates).astype(np.float32),
    )
    positions = rng.standard_normal((length, 37, 3)).astype(np.float32)
    mask = rng.random((length, 37)) < 0.6
    return Chain("1abc_A", rows[0], Alignment(rows, sparse(cut)), profile_of(rows), known, positions, mask, 2.0)


SMALL = DataConfig(crop_size=24, clusters=6, extra=10, templates=2, recycles=3)


# --- the slow forms, with one-hot matrices, as AlphaFold's pipeline has them


def one_hot(rows: Bytes) -> NDArray[np.float32]:
    return np.eye(CLASSES, dtype=np.float32)[rows]


def nearest_by_einsum(centres: Bytes, others: Bytes) -> NDArray[np.int64]:
    weights = np.concatenate([np.ones(21), np.zeros(2)]).astype(np.float32)
    agreement = np.einsum("mrc,nrc->nm", one_hot(others), weights * one_hot(centres), optimize=True)
    return agreement.argmax(0)


def summary_by_einsum(centres: Bytes, others: Bytes, cluster: NDArray[np.int64]) -> NDArray[np.float32]:
    deal = np.eye(len(centres), dtype=np.float32)[cluster]
    total = np.einsum("nm,nrc->mrc", deal, one_hot(others)) + one_hot(centres)
    return total / (1 + deal.sum(0))[:, None, None]


@pytest.mark.parametrize(
    ("depth", "length", "clusters"), [(1, 1, 1), (2, 63, 1), (50, 33, 7), (400, 300, 124), (9, 1000, 8)]
)
def test_clusters_are_those_of_the_slow_form(depth: int, length: int, clusters: int) -> None:
    made = chain(depth, length)
    centres, extra = draw_rows(np.arange(depth), replace(SMALL, clusters=clusters), 1, 2)
    rows = made.alignment.rows
    seen, _ = mask_rows(rows[centres], made.profile, replace(SMALL, masked=0.3), 4)
    cluster = nearest(seen, rows, extra)
    np.testing.assert_array_equal(cluster, nearest_by_einsum(seen, rows[extra]))
    shares, members = summarise(seen, rows, extra, cluster, slice(0, length))
    np.testing.assert_allclose(shares, summary_by_einsum(seen, rows[extra], cluster), rtol=1e-6)
    np.testing.assert_allclose(shares.sum(-1), 1, rtol=1e-6)
    assert members.sum() == depth


def test_deletions_are_those_of_whole_matrices() -> None:
    made, crop = chain(60, 40), slice(5, 29)
    centres, extra = draw_rows(np.arange(3, 60), SMALL, 7)
    cluster = nearest(made.alignment.rows[centres], made.alignment.rows, extra)
    dense = made.alignment.deletions.dense(60, 40)
    np.testing.assert_array_equal(of_rows(made.alignment.deletions, 60, extra, crop), dense[extra][:, crop])
    sums = dense[centres].astype(np.float32)
    np.add.at(sums, cluster, dense[extra])
    found = of_clusters(made.alignment.deletions, 60, centres, extra, cluster, crop)
    np.testing.assert_array_equal(found, sums[:, crop])


# --- draws


def test_numbers_depend_on_all_parts_of_a_key() -> None:
    keys = {int(key_of(*parts)) for parts in [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (2**63, 1), (-1, 2)]}
    assert len(keys) == 8


def test_numbers_are_evenly_spread() -> None:
    drawn = np.array([uniform(key_of(3), i) for i in range(20_000)])
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert np.abs(np.histogram(drawn, 10)[0] - 2000).max() < 200
    assert np.abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.02
    assert {int(below(key_of(4), i, 3)) for i in range(50)} == {0, 1, 2}


def test_every_order_is_as_likely() -> None:
    first = [int(shuffled(key_of(seed), np.arange(5))[0]) for seed in range(2000)]
    assert np.abs(np.bincount(first, minlength=5) - 400).max() < 80
    np.testing.assert_array_equal(np.sort(shuffled(key_of(1), np.arange(100))), np.arange(100))


def test_masks_have_the_shares_that_were_asked_for() -> None:
    rows = np.full((200, 300), 3, np.uint8)
    profile = np.zeros((300, 22), np.float32)
    profile[:, 7] = 1
    seen, chosen = mask_rows(rows, profile, DataConfig(), 5)
    assert abs(chosen.mean() - 0.15) < 0.005
    np.testing.assert_array_equal(seen[chosen == 0], 3)
    kinds = np.bincount(seen[chosen == 1], minlength=CLASSES) / chosen.sum()
    assert abs(kinds[MASKED] - 0.7) < 0.01
    assert abs(kinds[7] - 0.105) < 0.01
    assert abs(kinds[3] - 0.105) < 0.01
    assert kinds[20] == kinds[GAP] == 0


def test_blocks_are_left_out_but_never_the_first_row() -> None:
    kept = [block_deletion(1000, DataConfig(), 0, step, 0) for step in range(50)]
    assert all(rows[0] == 0 for rows in kept)
    assert 150 < np.mean([len(rows) for rows in kept]) < 400
    np.testing.assert_array_equal(block_deletion(1, DataConfig(), 0, 0, 0), [0])
    np.testing.assert_array_equal(block_deletion(9, replace(SMALL, deleted_blocks=0), 0, 0, 0), np.arange(9))


def test_unknown_residues() -> None:
    rows = np.full((100, 100), 5, np.uint8)
    rows[0] = GAP
    found = make_unknown(rows, 0.2, 1)
    np.testing.assert_array_equal(found[0], GAP)
    assert abs((found[1:] == 20).mean() - 0.2) < 0.02
    assert make_unknown(rows, 0.0, 1) is rows


def test_crops_lie_inside_and_reach_both_ends() -> None:
    for clamped in (True, False):
        starts = {crop_of(40, clamped, SMALL, 0, step, 0).start for step in range(600)}
        assert starts == set(range(17))
    assert crop_of(10, True, SMALL, 0, 0, 0) == slice(0, 10)


def test_unclamped_crops_start_early() -> None:
    means = [
        np.mean([crop_of(124, clamped, SMALL, 0, step, 0).start for step in range(500)]) for clamped in (True, False)
    ]
    assert means[0] > 1.5 * means[1]


def test_templates_are_of_the_surest_and_sometimes_none() -> None:
    sure = np.arange(50, dtype=np.float32)
    drawn = [draw_templates(sure, replace(SMALL, templates=4), 0, step, 0) for step in range(400)]
    assert {len(one) for one in drawn} == {0, 1, 2, 3, 4}
    assert all((one >= 30).all() and len(set(one.tolist())) == len(one) for one in drawn)
    assert len(draw_templates(np.zeros(0, np.float32), SMALL, 0, 0, 0)) == 0


def test_recycles_are_one_number_a_step() -> None:
    assert {recycles_of(SMALL, 0, step) for step in range(60)} == {0, 1, 2, 3}


# --- whole samples


def test_a_sample_depends_on_seed_step_and_place_alone() -> None:
    made = chain(30, 40)
    one, same = (sample(made, SMALL, 1, 2, 3, recycles=1) for _ in range(2))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    for drawn in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        other = sample(made, SMALL, *drawn, recycles=1)
        assert not np.array_equal(one["msa"], other["msa"])


@pytest.mark.parametrize(("depth", "length", "templates"), [(1, 3, 0), (2, 24, 1), (7, 25, 3), (300, 200, 5)])
def test_shapes_and_masks(depth: int, length: int, templates: int) -> None:
    found = sample(chain(depth, length, templates), SMALL, 0, 0, 0, recycles=2)
    shapes = {
        "aatype": (24,), "seq_mask": (24,), "positions": (24, 37, 3), "template_positions": (2, 24, 37, 3),
        "msa": (3, 6, 24), "cluster_profile": (3, 6, 24, CLASSES), "extra_msa": (3, 10, 24), "msa_row_mask": (3, 6),
        "template_mask": (2,), "extra_row_mask": (3, 10), "use_clamped_fape": (),
    }  # fmt: skip
    assert {name: found[name].shape for name in shapes} == shapes
    size = min(length, 24)
    assert found["seq_length"] == found["seq_mask"].sum() == size
    assert not found["msa"][..., size:].any()
    assert not found["msa"][found["msa_row_mask"] == 0].any()
    # A row that is left out never comes back as a cluster or as an extra one.
    assert found["msa_row_mask"].sum(1).max() + found["extra_row_mask"].sum(1).max() <= depth
    np.testing.assert_array_equal(found["true_msa"][found["bert_mask"] == 0], found["msa"][found["bert_mask"] == 0])


def test_the_first_row_is_the_chain_and_clusters_differ_between_iterations() -> None:
    made = chain(80, 24)
    found = sample(made, SMALL, 0, 1, 0, recycles=3)
    for turn in range(4):
        np.testing.assert_array_equal(found["true_msa"][turn, 0], made.aatype)
    assert not np.array_equal(found["true_msa"][0], found["true_msa"][1])


@pytest.mark.skipif("SARTOR_DATA" not in os.environ, reason="SARTOR_DATA is not set")
def test_a_real_alignment_gives_the_clusters_of_the_slow_form() -> None:
    stored = np.load(Path(os.environ["SARTOR_DATA"], "fold", "8d27_A.npz"))
    # This file has its residues in alphabetical order.
    table = np.array([*encode("ACDEFGHIKLMNPQRSTVWYX"), GAP], np.uint8)
    rows = table[stored["msa"]][:3000]
    centres, extra = draw_rows(np.arange(len(rows)), DataConfig(), 0)
    cluster = nearest(rows[centres], rows, extra)
    np.testing.assert_array_equal(cluster, nearest_by_einsum(rows[centres], rows[extra]))
