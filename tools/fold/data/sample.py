"""From a chain to a compact sample: what a training step sees of it, still in small integers.

Everything drawn is a function of seed, step and the sample's place in the step. N residues of a crop, R iterations of
recycling, S clusters, E extra rows, T templates; what is missing is zero and masked.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sartor.tools.fold.alphabet import CLASSES
from sartor.tools.fold.data.clustering import nearest, summarise
from sartor.tools.fold.data.config import DataConfig
from sartor.tools.fold.data.crop import crop_of, draw_templates, is_clamped
from sartor.tools.fold.data.deletions import of_clusters, of_rows
from sartor.tools.fold.data.masking import make_unknown, mask_rows
from sartor.tools.fold.data.random import RECYCLES, below, key_of
from sartor.tools.fold.data.rows import block_deletion, draw_rows
from sartor.tools.fold.store import Chain

Arrays = dict[str, NDArray[Any]]


def recycles_of(config: DataConfig, seed: int, step: int) -> int:
    """Return how often the samples of a step go through the model again: from 0 to `config.recycles` alike."""
    return int(below(key_of(seed, step, RECYCLES), 0, config.recycles + 1))


def sample(chain: Chain, config: DataConfig, seed: int, step: int, index: int, recycles: int | None = None) -> Arrays:
    """Return the compact sample of a chain at a place of a step; `recycles` are drawn for the step unless given."""
    if recycles is None:
        recycles = recycles_of(config, seed, step)
    drawn = (seed, step, index)
    clamped = is_clamped(config, *drawn)
    crop = crop_of(chain.length, clamped, config, *drawn)
    rows = block_deletion(len(chain.alignment.rows), config, *drawn)
    profile = chain.profile
    turns = [_turn(chain, rows, profile, config, crop, *drawn, turn) for turn in range(recycles + 1)]
    msa = {name: np.stack([one[name] for one in turns]) for name in turns[0]}
    fixed = {"use_clamped_fape": np.float32(clamped), **_residues(chain, config, crop)}
    return {**fixed, **_templates(chain, config, crop, *drawn), **msa}


def _residues(chain: Chain, config: DataConfig, crop: slice) -> Arrays:
    """Return what is known of the residues themselves."""
    size = config.crop_size
    length = crop.stop - crop.start
    mask = chain.mask[crop]
    return {
        "aatype": _padded(np.minimum(chain.aatype[crop], 20), (size,)),
        "residue_index": _padded(np.arange(crop.start, crop.stop, dtype=np.int32), (size,)),
        "seq_mask": _padded(np.ones(length, np.uint8), (size,)),
        "seq_length": np.int32(length),
        "positions": _padded(np.where(mask[..., None], chain.positions[crop], 0).astype(np.float32), (size, 37, 3)),
        "atom_mask": _padded(mask.astype(np.uint8), (size, 37)),
        "resolution": np.float32(chain.resolution),
        "is_distillation": np.float32(0),
    }


def _templates(chain: Chain, config: DataConfig, crop: slice, *drawn: int) -> Arrays:
    """Return the templates of a sample."""
    known = chain.templates
    chosen = draw_templates(known.sum_probs, config, *drawn)
    count, size = config.templates, config.crop_size
    return {
        "template_aatype": _padded(known.aatype[chosen][:, crop], (count, size)),
        "template_positions": _padded(known.positions[chosen][:, crop], (count, size, 37, 3)),
        "template_atom_mask": _padded(known.mask[chosen][:, crop].astype(np.uint8), (count, size, 37)),
        "template_sum_probs": _padded(known.sum_probs[chosen][:, None], (count, 1)),
        "template_mask": _padded(np.ones(len(chosen), np.uint8), (count,)),
    }


def _turn(
    chain: Chain, rows: NDArray[np.int64], profile: NDArray[np.float32], config: DataConfig, crop: slice, *drawn: int
) -> Arrays:
    """Return the rows that one iteration of recycling sees; clusters are made of whole rows and cropped then."""
    alignment, size = chain.alignment, config.crop_size
    centres, extra = draw_rows(rows, config, *drawn)
    true = make_unknown(alignment.rows[centres], config.unknown, *drawn)
    seen, hidden = mask_rows(true, profile, config, *drawn)
    cluster = nearest(seen, alignment.rows, extra)
    shares, members = summarise(seen, alignment.rows, extra, cluster, crop)
    cut, depth, more = alignment.deletions, len(alignment.rows), extra[: config.extra]
    sums = of_clusters(cut, depth, centres, extra, cluster, crop)
    wide, thin = (config.clusters, size), (config.extra, size)
    return {
        "msa": _padded(seen[:, crop], wide),
        "true_msa": _padded(true[:, crop], wide),
        "bert_mask": _padded(hidden[:, crop], wide),
        "deletions": _padded(of_rows(cut, depth, centres, crop), wide),
        "cluster_profile": _padded(shares, (*wide, CLASSES)),
        "cluster_deletion_mean": _padded((sums / members[:, None]).astype(np.float32), wide),
        "msa_row_mask": _padded(np.ones(len(centres), np.uint8), wide[:1]),
        "extra_msa": _padded(alignment.rows[more][:, crop], thin),
        "extra_deletions": _padded(of_rows(cut, depth, more, crop), thin),
        "extra_row_mask": _padded(np.ones(len(more), np.uint8), thin[:1]),
    }


def _padded(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return an array in a larger one of zeros."""
    out = np.zeros(shape, array.dtype)
    out[tuple(slice(0, size) for size in array.shape)] = array
    return out
