"""How many evaluations searches of pruning take to a target: strategies, starts, and what history brings.

The target is r_uniform + f (r_oracle - r_uniform) for f = 0.5 and 0.8, where the oracle is the best of a long hill
climb from uniform on a seed of its own. Evaluations are those of different counts; a search that misses the target
counts as its length (restricted mean). Every arm runs on the same seeds, so that ratios are bootstrapped in pairs. The
searches that left the histories are counted apart. Accuracy is that of the search's images; the best counts are then
judged on images that no search has seen.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from time import perf_counter
from typing import Any

import numpy as np
import torch
from _common import Bar, Outcome, finish, parser
from _pruning import Case, case

from sartor.tools.prune.history import History
from sartor.tools.prune.problem import Counts
from sartor.tools.prune.strategies.base import HillClimb, Random, Strategy
from sartor.tools.prune.strategies.fit import uniform
from sartor.tools.prune.strategies.learned import Learned
from sartor.tools.prune.strategies.prior import prior

RATIOS = {"resnet20": 0.5, "resnet56": 0.5, "resnet18": 0.3, "mobilenet_v1": 0.5}
SOURCES = {"resnet20": "mobilenet_v1", "resnet56": "resnet20", "resnet18": "resnet20", "mobilenet_v1": "resnet20"}
"""Whose history each network learns from."""

ARMS = ("random", "hill-climb", "ddpg", "weights", "augmented", "assistant", "all", "other target")
"""The last two use history, transfer and assistant; the last the history of the same network at another budget."""

STARTS = ("uniform", "prior")
FRACTIONS = (0.5, 0.8)
OTHER = 0.7
"""The share of multiplications of the other budget."""

SEEDS, EPISODES, ORACLE = 10, 100, 400
QUICK = (2, 6, 10)
AT = (10, 50)
"""Evaluations after which the best counts are judged on images that no search has seen; so they are at the end."""

RESAMPLES = 2000


@dataclass(frozen=True)
class Search:
    """One search: the accuracy and the number of evaluations after each episode, seconds, and held-out accuracies."""

    arm: str
    start: str
    seed: int
    scores: tuple[float, ...]
    evaluated: tuple[int, ...]
    seconds: float
    held_out: tuple[float, ...]

    def to(self, target: float) -> float:
        """Return the evaluations to a target, all of them where it was missed."""
        hits = [count for score, count in zip(self.scores, self.evaluated, strict=True) if score >= target]
        return float(hits[0] if hits else len(self.scores))


@dataclass(frozen=True)
class Task:
    """What one process is asked to do."""

    case: Case
    arm: str
    start: str
    seed: int
    episodes: int
    histories: tuple[History, ...] = ()
    judged: bool = True


def strategy_of(task: Task, base: Counts) -> Strategy:
    """Return the strategy of an arm."""
    problem = task.case.problem
    if task.arm == "random":
        return Random(problem, base, task.seed)
    if task.arm == "hill-climb":
        return HillClimb(problem, base, task.seed)
    known = task.histories if task.arm not in ("ddpg", "assistant") else ()
    transfer = {"ddpg": "none", "assistant": "none", "weights": "weights"}.get(task.arm, "augmented")
    assist = task.arm in ("assistant", "all", "other target")
    return Learned(problem, base, task.seed, known, transfer, assist)  # type: ignore[arg-type]


def run(task: Task) -> tuple[Search, History]:
    """Run a search."""
    torch.set_num_threads(1)
    case, started = task.case, perf_counter()
    base = uniform(case.problem) if task.start == "uniform" else prior(case.problem)
    strategy = strategy_of(task, base)
    counts: list[Counts] = []
    scores: list[float] = []
    evaluated: list[int] = []
    for _ in range(task.episodes):
        counts.append(strategy.propose())
        scores.append(case.score(counts[-1]))
        strategy.observe(counts[-1], case.reward(scores[-1]))
        evaluated.append(len({one.tobytes() for one in counts}))
    seconds = perf_counter() - started
    best = [counts[int(np.argmax(scores[:at]))] for at in (*AT, len(scores))] if task.judged else []
    held_out = tuple(case.held_out(one) for one in best)
    history = case.history(base, np.array(counts), np.array(scores), strategy.parameters())
    return Search(task.arm, task.start, task.seed, tuple(scores), tuple(evaluated), seconds, held_out), history


def interval(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Return the ratio of mean evaluations, theirs over ours, with a 95 % interval by a bootstrap over seeds."""
    pairs = np.array([ours, theirs])
    rng = np.random.default_rng(0)
    drawn = pairs[:, rng.integers(0, len(ours), (RESAMPLES, len(ours)))].mean(2)
    low, high = np.percentile(drawn[1] / drawn[0], [2.5, 97.5])
    return float(pairs[1].mean() / pairs[0].mean()), float(low), float(high)


@dataclass(frozen=True)
class Found:
    """All searches on one network, its oracle, and what the histories took."""

    case: Case
    oracle: Search
    sources: tuple[Search, ...]
    searches: tuple[Search, ...]

    def of(self, arm: str, start: str) -> list[Search]:
        """Return the searches of an arm in the order of their seeds."""
        return sorted((one for one in self.searches if (one.arm, one.start) == (arm, start)), key=lambda one: one.seed)

    def target(self, fraction: float) -> float:
        """Return the accuracy that is aimed at."""
        low, high = self.case.ends[0], max(self.oracle.scores)
        return low + fraction * (high - low)

    def evaluations(self, arm: str, start: str, fraction: float) -> list[float]:
        """Return the evaluations of every seed to the target."""
        return [one.to(self.target(fraction)) for one in self.of(arm, start)]


def measure(name: str, arms: Sequence[str], numbers: tuple[int, int, int], processes: int, target: Case) -> Found:
    """Run all searches on one network."""
    seeds, episodes, oracle_episodes = numbers
    kind = (target.source, target.samples, target.epochs)
    others = {"all": case(SOURCES[name], RATIOS[SOURCES[name]], *kind), "other target": case(name, OTHER, *kind)}
    # Networks are trained and calibrated once, before processes are made of this one.
    for one in (target, *others.values()):
        _ = one.ends
    with ProcessPoolExecutor(processes, get_context("fork")) as pool:
        begun = {key: pool.submit(run, Task(one, "assistant", "uniform", 1000, episodes, judged=False))
                 for key, one in others.items()}  # fmt: skip
        oracle = pool.submit(run, Task(target, "hill-climb", "uniform", 1001, oracle_episodes))
        histories = {key: future.result() for key, future in begun.items()}
        known = {arm: (histories["other target" if arm == "other target" else "all"][1],) for arm in arms}
        tasks = [
            Task(target, arm, start, seed, episodes, known[arm])
            for seed in range(seeds) for start in STARTS for arm in arms
        ]  # fmt: skip
        searches = []
        for search, _ in pool.map(run, tasks):
            searches.append(search)
            print(name, search.arm, search.start, search.seed, f"{max(search.scores):.4f}", file=sys.stderr, flush=True)
        return Found(target, oracle.result()[0], tuple(one for one, _ in histories.values()), tuple(searches))


def rows_of(found: Found) -> list[dict[str, Any]]:
    """Return one row an arm and start."""
    rows = []
    for start in STARTS:
        for arm in dict.fromkeys(one.arm for one in found.searches):
            searches = found.of(arm, start)
            row: dict[str, Any] = {"network": found.case.name, "start": start, "arm": arm, "seeds": len(searches)}
            for fraction in FRACTIONS:
                ours = found.evaluations(arm, start, fraction)
                row[f"to_{fraction}"] = float(np.mean(ours))
                row[f"missed_{fraction}"] = sum(max(one.scores) < found.target(fraction) for one in searches)
                row[f"over_ddpg_{fraction}"] = interval(ours, found.evaluations("ddpg", start, fraction))
                row[f"over_hill_climb_{fraction}"] = interval(ours, found.evaluations("hill-climb", start, fraction))
            row["best"] = float(np.mean([max(one.scores) for one in searches]))
            row["held_out"] = [
                float(np.mean(column)) for column in zip(*(one.held_out for one in searches), strict=True)
            ]
            row["seconds"] = float(np.mean([one.seconds for one in searches]))
            row["curve"] = np.mean([np.maximum.accumulate(one.scores) for one in searches], axis=0).tolist()
            rows.append(row)
    return rows


def bars_of(found: Found) -> tuple[Bar, ...]:
    """Return what is claimed, on one network."""
    name = found.case.name
    from_uniform = interval(found.evaluations("all", "uniform", 0.8), found.evaluations("ddpg", "uniform", 0.8))
    from_prior = interval(found.evaluations("all", "prior", 0.8), found.evaluations("hill-climb", "prior", 0.8))
    ends = [float(np.mean([one.held_out[-1] for one in found.of(arm, "prior")])) for arm in ("all", "hill-climb")]
    bars = [
        Bar(f"{name}: history over DDPG from scratch, from uniform", from_uniform[0], 2.4, True),
        Bar(f"{name}: history over hill climb, from the prior; this, or the next", from_prior[0], 1.3, True),
        Bar(f"{name}: held-out accuracy at the end over hill climb's, from the prior", ends[0] - ends[1], 0, True),
    ]
    if name != "resnet18":
        first = float(np.mean(found.evaluations("all", "prior", 0.8)))
        ours = float(np.mean([one.held_out[1] for one in found.of("all", "prior")]))
        bars += [
            Bar(f"{name}: evaluations from the prior to 0.8 of the oracle", first, 10, False),
            Bar(f"{name}: held-out accuracy after 50 over the oracle's", ours - found.oracle.held_out[-1], 0, True),
        ]
    return tuple(bars)


def cells_of(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the row of the table."""
    ratio, low, high = row["over_ddpg_0.8"]
    climb = row["over_hill_climb_0.8"][0]
    return (
        row["start"], row["arm"], f"{row['to_0.5']:.1f}", f"{row['to_0.8']:.1f}", str(row["missed_0.8"]),
        f"{ratio:.2f} [{low:.2f}, {high:.2f}]", f"{climb:.2f}", f"{row['best']:.4f}",
        " / ".join(f"{one:.4f}" for one in row["held_out"]), f"{row['seconds']:.0f}",
    )  # fmt: skip


COLUMNS = ("start", "arm", "to .5", "to .8", "missed", "over ddpg", "over climb", "best", "held out", "s")


def main() -> None:
    """Measure the networks, one result file each."""
    made = parser(__doc__)
    made.add_argument("--only", nargs="*", choices=RATIOS, help="networks")
    made.add_argument("--arms", nargs="*", choices=ARMS, default=ARMS, help="arms; ddpg and hill-climb are needed")
    made.add_argument("--seeds", type=int, default=SEEDS, help="searches of each arm")
    made.add_argument("--episodes", type=int, default=EPISODES, help="episodes of a search")
    made.add_argument("--images", choices=("textures", "mnist"), default="textures", help="what is classified")
    made.add_argument("--processes", type=int, default=2, help="searches at a time")
    options = made.parse_args()
    numbers = QUICK if options.quick else (options.seeds, options.episodes, ORACLE)
    case_of = partial(case, source=options.images, **({"samples": 128, "epochs": 1} if options.quick else {}))
    for name in options.only or RATIOS:
        found = measure(name, options.arms, numbers, options.processes, case_of(name, RATIOS[name]))
        rows = rows_of(found)
        settings = {
            "network": name, "images": options.images, "ratio": RATIOS[name], "seeds": numbers[0],
            "episodes": numbers[1], "uniform": found.case.ends[0], "original": found.case.ends[1],
            "oracle": max(found.oracle.scores), "oracle_held_out": found.oracle.held_out[-1],
            "sources": [{"arm": one.arm, "evaluated": one.evaluated[-1]} for one in found.sources],
        }  # fmt: skip
        cells, bars = tuple(map(cells_of, rows)), bars_of(found) if not options.quick else ()
        finish(Outcome(f"prune_convergence_{name}", settings, COLUMNS, cells, tuple(rows), bars), options)


if __name__ == "__main__":
    main()
