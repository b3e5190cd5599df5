"""The plain form of `sample`, which tests and the benchmark compare it with: one-hot matrices and dense deletions.

It is what training pipelines commonly do, with the same draws. Shapes: D rows of the alignment, K of them kept, L
columns; S clusters, E extra rows, N residues of a crop, R iterations of recycling.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sartor.tools.fold.alphabet import CLASSES, GAP, MASKED, RESIDUES, UNKNOWN
from sartor.tools.fold.data.clusters import TINY, nearest_reference, summarise_reference
from sartor.tools.fold.data.config import DataConfig
from sartor.tools.fold.data.draws import Purpose, key_of
from sartor.tools.fold.data.profile import profile_reference
from sartor.tools.fold.store import Chain

Arrays = dict[str, NDArray[Any]]
Floats = NDArray[np.float64]
Rows = NDArray[np.uint8]


def uniforms(key: np.uint64, count: int) -> Floats:
    """Return the first numbers of a stream (count,), each from 0 to below 1."""
    bits = key + np.uint64(0x9E3779B97F4A7C15) * np.arange(1, count + 1, dtype=np.uint64)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((bits ^ (bits >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def shuffled(key: np.uint64, items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return items in random order."""
    out, draws = items.tolist(), uniforms(key, len(items)).tolist()
    for i in range(len(out) - 1, 0, -1):
        j = int(draws[i] * (i + 1))
        out[i], out[j] = out[j], out[i]
    return np.array(out, np.int64)


def sample_reference(
    chain: Chain, config: DataConfig, seed: int, step: int, index: int, recycles: int | None = None
) -> Arrays:
    """Return what `sample` does."""
    drawn = (seed, step, index)
    if recycles is None:
        recycles = int(uniforms(key_of(seed, step, Purpose.RECYCLES), 1)[0] * (config.recycles + 1))
    clamped = bool(uniforms(key_of(*drawn, Purpose.CLAMPED), 1)[0] < config.clamped)
    crop = _crop(chain.length, clamped, config, *drawn)
    rows, profile = chain.msa, chain.profile
    if config.unknown > 0:
        rows = _unknown(rows, config.unknown, key_of(*drawn, Purpose.UNKNOWN_ROWS))
        profile = profile_reference(rows)
    cut = np.zeros(rows.shape, np.uint16)
    cut[chain.deletions.rows, chain.deletions.columns] = chain.deletions.counts
    each = [_iteration(rows, cut, profile, config, crop, *drawn, number) for number in range(recycles + 1)]
    varying = {name: np.stack([one[name] for one in each]) for name in each[0]}
    return {"use_clamped_fape": np.array(clamped, np.float32), **_fixed(chain, config, crop, *drawn), **varying}


def _crop(length: int, clamped: bool, config: DataConfig, *drawn: int) -> slice:
    room = max(length - config.crop_size, 0)
    back, start = uniforms(key_of(*drawn, Purpose.CROP), 2)
    if not clamped:
        room -= int(back * (room + 1))
    first = int(start * (room + 1))
    return slice(first, first + min(config.crop_size, length))


def _unknown(rows: Rows, share: float, key: np.uint64) -> Rows:
    draws = uniforms(key, rows.size).reshape(rows.shape)
    return np.where((rows < UNKNOWN) & (draws < share), UNKNOWN, rows).astype(np.uint8)


def _kept(depth: int, config: DataConfig, *drawn: int) -> NDArray[np.int64]:
    size = int(depth * config.deleted_share)
    starts = (uniforms(key_of(*drawn, Purpose.BLOCKS), config.deleted_blocks) * depth).astype(int)
    gone = {row for start in starts for row in range(start, start + size)} - {0}
    return np.array([row for row in range(depth) if row not in gone], np.int64)


def _masked(rows: Rows, profile: NDArray[np.float32], config: DataConfig, *drawn: int) -> tuple[Rows, Rows]:
    where, what = (
        uniforms(key_of(*drawn, purpose), rows.size).reshape(rows.shape)
        for purpose in (Purpose.MASK, Purpose.REPLACEMENT)
    )
    upto = np.cumsum([config.masked_uniform, config.masked_profile, config.masked_same])
    sums = np.cumsum(profile, axis=1, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        part = (what - upto[0]) / (upto[1] - upto[0]) * sums[:, -1]
        anything = np.minimum(what / upto[0] * len(RESIDUES), len(RESIDUES) - 1)
    like_column = np.minimum((part[..., None] >= sums).sum(-1), GAP)
    kinds = [what < upto[0], what < upto[1], what < upto[2]]
    new = np.select(kinds, [np.nan_to_num(anything).astype(int), like_column, rows], MASKED)
    chosen = where < config.masked
    return np.where(chosen, new, rows).astype(np.uint8), chosen.astype(np.uint8)


def _iteration(
    rows: Rows, cut: NDArray[np.uint16], profile: NDArray[np.float32], config: DataConfig, crop: slice, *drawn: int
) -> Arrays:
    kept = _kept(len(rows), config, *drawn)
    rows, cut = rows[kept], cut[kept]
    order = shuffled(key_of(*drawn, Purpose.ORDER), np.arange(1, len(rows)))
    centres = np.concatenate([[0], order[: config.clusters - 1]])
    others = order[config.clusters - 1 :]
    seen, hidden = _masked(rows[centres], profile, config, *drawn)
    cluster = nearest_reference(seen, rows[others])
    belongs = np.eye(len(centres), dtype=np.float32)[cluster]
    members = TINY + np.ones(len(centres), np.float32) + belongs.sum(0)
    sums = belongs.T @ cut[others].astype(np.float32) + cut[centres].astype(np.float32)
    extra = others[: config.extra]
    near, far = (config.clusters, config.crop_size), (config.extra, config.crop_size)
    return {
        "msa": _padded(seen[:, crop], near),
        "true_msa": _padded(rows[centres, crop], near),
        "bert_mask": _padded(hidden[:, crop], near),
        "deletions": _padded(cut[centres, crop], near),
        "cluster_profile": _padded(summarise_reference(seen, rows[others], cluster)[:, crop], (*near, CLASSES)),
        "cluster_deletion_mean": _padded((sums / members[:, None])[:, crop], near),
        "msa_row_mask": _padded(np.ones(len(centres), np.uint8), near[:1]),
        "extra_msa": _padded(rows[extra, crop], far),
        "extra_deletions": _padded(cut[extra, crop], far),
        "extra_row_mask": _padded(np.ones(len(extra), np.uint8), far[:1]),
    }


def _fixed(chain: Chain, config: DataConfig, crop: slice, *drawn: int) -> Arrays:
    size, length, known = config.crop_size, crop.stop - crop.start, chain.templates
    aatype = _unknown(chain.aatype, config.unknown, key_of(*drawn, Purpose.UNKNOWN_RESIDUES))
    pool = min(len(known.sum_probs), config.template_pool)
    count = int(uniforms(key_of(*drawn, Purpose.TEMPLATE_COUNT), 1)[0] * (pool + 1))
    chosen = shuffled(key_of(*drawn, Purpose.TEMPLATE_ORDER), np.arange(pool))[: min(count, config.templates)]
    shape = (config.templates, size)
    return {
        "aatype": _padded(aatype[crop], (size,)),
        "residue_index": _padded(np.arange(chain.length, dtype=np.int32)[crop], (size,)),
        "seq_mask": _padded(np.ones(length, np.uint8), (size,)),
        "seq_length": np.array(length, np.int32),
        "positions": _padded(chain.positions[crop], (size, 37, 3)),
        "atom_mask": _padded(chain.mask[crop].astype(np.uint8), (size, 37)),
        "resolution": np.array(chain.resolution, np.float32),
        "is_distillation": np.array(0, np.float32),
        "template_aatype": _padded(known.aatype[chosen, crop], shape),
        "template_positions": _padded(known.positions[chosen, crop], (*shape, 37, 3)),
        "template_atom_mask": _padded(known.mask[chosen, crop].astype(np.uint8), (*shape, 37)),
        "template_sum_probs": _padded(known.sum_probs[chosen, None], (config.templates, 1)),
        "template_mask": _padded(np.ones(len(chosen), np.uint8), shape[:1]),
    }


def _padded(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    return np.pad(array, [(0, size - have) for size, have in zip(shape, array.shape, strict=True)])
