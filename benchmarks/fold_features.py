"""Time the samples of `sartor fold-train` against their plain form, one-hot matrices, and the packing of an alignment.

The chain is 8d27_A (12,141 rows of 287 residues, 20 templates) where `SARTOR_DATA` has it, and a random one of the same
size otherwise. One core. Each result is first compared with the plain form, bit by bit. The time of a sample is the
mean over the numbers of recycles, which are drawn alike.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain as chain_all
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any

import numpy as np
from _common import Bar, Outcome, finish, parser

from sartor.share.timing import Race, race
from sartor.tools.fold.alphabet import RESIDUES, decode
from sartor.tools.fold.data.clusters import nearest, nearest_reference, transposed
from sartor.tools.fold.data.config import DataConfig
from sartor.tools.fold.data.profile import profile_of, profile_reference
from sartor.tools.fold.data.reference import sample_reference
from sartor.tools.fold.data.sample import sample
from sartor.tools.fold.parse.a3m import parse_a3m
from sartor.tools.fold.parse.alignment import Deletions, for_query, sparse, stack
from sartor.tools.fold.store import Chain, Templates
from sartor.tools.fold.writing import pack_sequence

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
COLUMNS = ("work", "case", "sartor ms", "one-hot ms", "ratio")
ROWS, LENGTH, TEMPLATES = 12_141, 287, 20
MOST_SECONDS, LEAST_RATIO, MOST_PACKING = 0.25, 10.0, 2.0


@dataclass(frozen=True)
class Result:
    """A case that was checked and timed; sartor is `a` in the race, and alone where nothing is compared."""

    work: str
    case: str
    milliseconds: float
    times: Race | None

    def as_json(self) -> dict[str, Any]:
        """Return the row of the result file."""
        times = {} if self.times is None else {"one_hot": self.times.as_json()}
        return {"work": self.work, "case": self.case, "milliseconds": round(self.milliseconds, 3), **times}

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table, of least times."""
        other = ("-", "-")
        if self.times is not None:
            other = (f"{self.times.b.minimum / 1e3:.1f}", f"{self.times.ratio_min:.1f}")
        return self.work, self.case, f"{self.milliseconds:.2f}", *other


def real_chain(path: Path) -> Chain:
    """Return the chain of the file, whose alignment is in the order of HHblits."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    ours = np.array([f"{RESIDUES}X-".index(letter) for letter in "ACDEFGHIKLMNPQRSTVWYX-"], np.uint8)
    msa = ours[arrays["msa"]]
    order = np.lexsort((arrays["deletion_col"], arrays["deletion_row"]))
    cut = Deletions(*(arrays[f"deletion_{name}"][order] for name in ("row", "col", "count")))
    mask = arrays["template_mask"].astype(bool)
    templates = Templates(
        tuple(map(str, range(len(mask)))), arrays["template_aatype"], arrays["template_positions"], mask,
        arrays["template_sum_probs"][:, 0],
    )  # fmt: skip
    residues = (arrays["positions"], arrays["mask"].astype(bool))
    return Chain("8d27_A", msa[0], msa, cut, profile_of(msa), templates, *residues, 2.25)


def random_chain(rows: int) -> Chain:
    """Return a chain of the same size with a random alignment."""
    random = np.random.default_rng(0)
    msa = random.integers(0, 22, (rows, LENGTH), np.uint8)
    msa[0] = np.minimum(msa[0], 20)
    cut = sparse(np.where(random.random(msa.shape) < 0.0125, random.integers(1, 9, msa.shape), 0).astype(np.uint16))
    mask = random.random((TEMPLATES + 1, LENGTH, 37)) < 0.2
    positions = (random.standard_normal((*mask.shape, 3), np.float32) * mask[..., None]).astype(np.float32)
    aatype = random.integers(0, 22, (TEMPLATES, LENGTH), np.uint8)
    shown = Templates(("",) * TEMPLATES, aatype, positions[1:], mask[1:], np.linspace(99, 9, TEMPLATES, dtype="f4"))
    return Chain("random", msa[0], msa, cut, profile_of(msa), shown, positions[0], mask[0], 2.0)


def load(quick: bool) -> Chain:
    """Return the real chain where it is, and a random one otherwise, which a smoke test has smaller."""
    path = Path(os.environ.get("SARTOR_DATA", "")) / "fold" / "8d27_A.npz"
    return random_chain(300) if quick else real_chain(path) if path.exists() else random_chain(ROWS)


def samples(chain: Chain, seconds: float) -> Iterator[Result]:
    """Time whole samples, as they are trained on and with all rows of the alignment."""
    configs = {"training": DataConfig.initial_training(), "all rows": DataConfig(clusters=124, deleted_blocks=0)}
    for name, config in configs.items():
        for recycles in range(config.recycles + 1):
            yield timed(
                "sample", f"{name}, {recycles} recycles",
                lambda config=config, recycles=recycles: sample(chain, config, 0, 1, 2, recycles),
                lambda config=config, recycles=recycles: sample_reference(chain, config, 0, 1, 2, recycles), seconds,
            )  # fmt: skip


def kernels(chain: Chain, seconds: float) -> Iterator[Result]:
    """Time what takes longest in the plain form."""
    everything = np.arange(len(chain.msa))
    rows, columns = transposed(chain.msa, everything)
    centres = rows[:124]
    yield timed(
        "kernel", "nearest clusters", lambda: {"": nearest(centres, columns)},
        lambda: {"": nearest_reference(centres, rows)}, seconds,
    )  # fmt: skip
    yield timed(
        "kernel", "profile", lambda: {"": profile_of(rows)}, lambda: {"": profile_reference(rows)}, seconds
    )  # fmt: skip


def timed(
    work: str, case: str, ours: Callable[[], dict[str, Any]], plain: Callable[[], dict[str, Any]], seconds: float
) -> Result:
    """Compare both sides, exit where a bit differs, and time them."""
    a, b = ours(), plain()
    for name, expected in b.items():
        if a[name].dtype != expected.dtype or not np.array_equal(a[name], expected):
            sys.exit(f"{work}, {case}: {name} is not that of the plain form")
    times = race(ours, plain, seconds)
    return Result(work, case, times.a.minimum / 1e3, times)


def packing(chain: Chain) -> Result:
    """Time the way of an alignment from the text of a file to what a shard holds; least of three."""
    text, query = text_of(chain), chain.aatype

    def pack() -> None:
        alignment = stack([for_query(parse_a3m(text, "text"), query, "text")])
        pack_sequence("key", alignment, profile_of(alignment.rows), chain.templates, [])

    pack()
    times = []
    for _ in range(3):
        started = perf_counter()
        pack()
        times.append(perf_counter() - started)
    return Result("packing", f"{len(chain.msa)} rows, {len(text) / 1e6:.1f} MB", 1e3 * min(times), None)


def text_of(chain: Chain) -> bytes:
    """Return the alignment of a chain in a3m."""
    rows = [list(decode(row)) for row in chain.msa]
    cut = chain.deletions
    for row, column, count in zip(cut.rows.tolist(), cut.columns.tolist(), cut.counts.tolist(), strict=True):
        rows[row][column] = "a" * count + rows[row][column]
    return "".join(f">row{number}\n{''.join(row)}\n" for number, row in enumerate(rows)).encode()


def bars_of(results: list[Result]) -> tuple[Bar, ...]:
    """Bound a sample's mean time and its ratio to the plain form, and the time of packing."""
    bars = []
    for name in ("training", "all rows"):
        own = [one for one in results if one.work == "sample" and one.case.startswith(name)]
        seconds = mean(one.milliseconds for one in own) / 1e3
        other = mean(one.times.b.minimum for one in own if one.times) / 1e6
        bars.append(Bar(f"seconds a sample ({name})", seconds, MOST_SECONDS, False))
        bars.append(Bar(f"one-hot over sartor ({name})", other / seconds, LEAST_RATIO, True))
    (packed,) = (one for one in results if one.work == "packing")
    return (*bars, Bar("seconds to pack an alignment", packed.milliseconds / 1e3, MOST_PACKING, False))


def main() -> None:
    """Measure samples, kernels and packing."""
    made = parser(__doc__)
    made.add_argument("--seconds", type=float, default=2.0, help="time of one race")
    options = made.parse_args()
    chain, seconds = load(options.quick), 0.02 if options.quick else options.seconds
    results = []
    for result in chain_all(samples(chain, seconds), kernels(chain, seconds), [packing(chain)]):
        results.append(result)
        print(*result.cells(), file=sys.stderr, flush=True)
    settings = {"threads": 1, "seconds": seconds, "chain": chain.name, "rows": len(chain.msa), "length": chain.length}
    cells, rows = tuple(one.cells() for one in results), tuple(one.as_json() for one in results)
    finish(Outcome("fold_features", settings, COLUMNS, cells, rows, bars_of(results)), options)


if __name__ == "__main__":
    if any(os.environ.get(name) != "1" for name in THREADS):
        # The library behind numpy counts its threads once, when it is loaded.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **dict.fromkeys(THREADS, "1")})
    main()
