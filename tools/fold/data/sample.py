"""From a chain to a compact sample: what a training step sees of it, still in small integers.

Whatever is drawn is a function of seed, step and the sample's place in the step. Shapes: N residues of a crop, R
iterations of recycling, S clusters, E extra rows, T templates; what a chain has less of is zero and masked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sartor.tools.fold.alphabet import CLASSES
from sartor.tools.fold.data import deletions
from sartor.tools.fold.data.clusters import members_of, nearest, summarise, transposed
from sartor.tools.fold.data.config import DataConfig
from sartor.tools.fold.data.crop import draw_clamped, draw_crop, draw_templates
from sartor.tools.fold.data.draws import Purpose, below, key_of
from sartor.tools.fold.data.masking import mask_rows, unknown_residues, unknown_rows
from sartor.tools.fold.data.profile import profile_of
from sartor.tools.fold.data.rows import draw_clusters, kept_rows
from sartor.tools.fold.parse.alignment import Deletions
from sartor.tools.fold.store import ATOMS, Chain

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Source:
    """What iterations are drawn from: rows (D, L), deletions and where those of each row begin, profile (L, 22)."""

    rows: NDArray[np.uint8]
    deletions: Deletions
    starts: NDArray[np.int64]
    profile: NDArray[np.float32]


def recycles_of(config: DataConfig, seed: int, step: int) -> int:
    """Return how often the samples of a step go through the model again, 0 to `recycles` alike (1.10)."""
    return int(below(key_of(seed, step, Purpose.RECYCLES), 0, config.recycles + 1))


def sample(chain: Chain, config: DataConfig, seed: int, step: int, index: int, recycles: int | None = None) -> Arrays:
    """Return the compact sample of a chain at a place of a step; recycles are drawn for the step unless given.

    The crop is the same in all iterations; blocks of rows, clusters and masks are drawn anew in each.
    """
    drawn = (seed, step, index)
    if recycles is None:
        recycles = recycles_of(config, seed, step)
    clamped = draw_clamped(config, *drawn)
    crop = draw_crop(chain.length, clamped, config, *drawn)
    source = _source(chain, config, *drawn)
    varying = _empty(config, recycles + 1)
    for iteration in range(recycles + 1):
        _draw_iteration(source, config, crop, {name: array[iteration] for name, array in varying.items()},
                        *drawn, iteration)  # fmt: skip
    fixed = {"use_clamped_fape": np.array(clamped, np.float32), **_residues(chain, config, crop, *drawn)}
    return {**fixed, **_templates(chain, config, crop, *drawn), **varying}


def _source(chain: Chain, config: DataConfig, *drawn: int) -> Source:
    rows, profile = chain.msa, chain.profile
    if config.unknown > 0:
        rows = unknown_rows(rows, config.unknown, *drawn)
        profile = profile_of(rows)
    return Source(rows, chain.deletions, deletions.starts_of(chain.deletions, len(rows)), profile)


def _empty(config: DataConfig, iterations: int) -> Arrays:
    """Return zeros in the shape of all that is drawn anew in each iteration."""
    near, far = (iterations, config.clusters, config.crop_size), (iterations, config.extra, config.crop_size)
    return {
        "msa": np.zeros(near, np.uint8),
        "true_msa": np.zeros(near, np.uint8),
        "bert_mask": np.zeros(near, np.uint8),
        "deletions": np.zeros(near, np.uint16),
        "cluster_profile": np.zeros((*near, CLASSES), np.float32),
        "cluster_deletion_mean": np.zeros(near, np.float32),
        "msa_row_mask": np.zeros(near[:2], np.uint8),
        "extra_msa": np.zeros(far, np.uint8),
        "extra_deletions": np.zeros(far, np.uint16),
        "extra_row_mask": np.zeros(far[:2], np.uint8),
    }


def _draw_iteration(source: Source, config: DataConfig, crop: slice, out: Mapping[str, NDArray[Any]],
                    *drawn: int) -> None:  # fmt: skip
    """Draw the rows of one iteration into its arrays; clusters are made of whole rows and cropped then."""
    kept = kept_rows(len(source.rows), config, *drawn)
    rows, columns = transposed(source.rows, kept)
    centres, others = draw_clusters(len(kept), config, *drawn)
    true = rows[centres]
    seen, hidden = mask_rows(true, source.profile, config, *drawn)
    cluster = nearest(seen, columns)
    size, width = len(centres), crop.stop - crop.start
    for name, array in (("msa", seen), ("true_msa", true), ("bert_mask", hidden)):
        out[name][:size, :width] = array[:, crop]
    out["msa_row_mask"][:size] = 1
    members = members_of(cluster, others, size)
    summarise(seen, rows, others, cluster, members, crop, out["cluster_profile"][:size, :width])
    deletions.dense(source.deletions, source.starts, kept[centres], crop, out["deletions"])
    mean = out["cluster_deletion_mean"][:size]
    mean += out["deletions"][:size]
    deletions.add(source.deletions, source.starts, kept[others], cluster[others], crop, mean)
    mean /= members[:, None]
    _draw_extra(source, rows, kept, others[: config.extra], crop, out)


def _draw_extra(
    source: Source, rows: NDArray[np.uint8], kept: NDArray[np.int64], extra: NDArray[np.int64], crop: slice,
    out: Mapping[str, NDArray[Any]],
) -> None:  # fmt: skip
    """Write the rows that the model sees less closely."""
    out["extra_msa"][: len(extra), : crop.stop - crop.start] = rows[extra, crop]
    out["extra_row_mask"][: len(extra)] = 1
    deletions.dense(source.deletions, source.starts, kept[extra], crop, out["extra_deletions"])


def _residues(chain: Chain, config: DataConfig, crop: slice, *drawn: int) -> Arrays:
    """Return what is known of the residues themselves."""
    size, length = config.crop_size, crop.stop - crop.start
    aatype = unknown_residues(chain.aatype, config.unknown, *drawn) if config.unknown > 0 else chain.aatype
    mask = chain.mask[crop]
    return {
        "aatype": _padded(aatype[crop], size),
        "residue_index": _padded(np.arange(crop.start, crop.stop, dtype=np.int32), size),
        "seq_mask": _padded(np.ones(length, np.uint8), size),
        "seq_length": np.array(length, np.int32),
        "positions": _padded(chain.positions[crop], size),
        "atom_mask": _padded(mask.astype(np.uint8), size),
        "resolution": np.array(chain.resolution, np.float32),
        "is_distillation": np.array(0, np.float32),
    }


def _templates(chain: Chain, config: DataConfig, crop: slice, *drawn: int) -> Arrays:
    """Return the templates that a sample sees."""
    known, count, size = chain.templates, config.templates, config.crop_size
    chosen = draw_templates(len(known.sum_probs), config, *drawn)
    out: Arrays = {
        "template_aatype": np.zeros((count, size), np.uint8),
        "template_positions": np.zeros((count, size, ATOMS, 3), np.float32),
        "template_atom_mask": np.zeros((count, size, ATOMS), np.uint8),
        "template_sum_probs": np.zeros((count, 1), np.float32),
        "template_mask": np.zeros(count, np.uint8),
    }
    there = (slice(len(chosen)), slice(crop.stop - crop.start))
    out["template_aatype"][there] = known.aatype[chosen, crop]
    out["template_positions"][there] = known.positions[chosen, crop]
    out["template_atom_mask"][there] = known.mask[chosen, crop]
    out["template_sum_probs"][: len(chosen), 0] = known.sum_probs[chosen]
    out["template_mask"][: len(chosen)] = 1
    return out


def _padded(array: NDArray[Any], size: int) -> NDArray[Any]:
    """Return an array with zeros behind it along the first axis."""
    out = np.zeros((size, *array.shape[1:]), array.dtype)
    out[: len(array)] = array
    return out
