"""The search: proposals are evaluated once each, and every episode is kept as soon as it is finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sartor.share.artifact import Model
from sartor.share.console import Step, note
from sartor.share.errors import UsageError
from sartor.tools.prune.evaluate import Judge
from sartor.tools.prune.history import History, Run, read_histories, standardised, write_history
from sartor.tools.prune.network import Network
from sartor.tools.prune.plan import Options
from sartor.tools.prune.prepare import Samples
from sartor.tools.prune.problem import Counts, Floats, Problem
from sartor.tools.prune.strategies.base import HillClimb, Random, Strategy
from sartor.tools.prune.strategies.fit import uniform
from sartor.tools.prune.strategies.prior import prior

Score = Callable[[Counts], float]

FINALISTS = 8
"""Counts that are judged once more, on other samples: the best of many is good by chance as well."""


@dataclass(frozen=True)
class Beginning:
    """An empty history of this search, the interrupted one that it goes on with, and those of other searches."""

    history: History
    resumed: History | None
    others: tuple[History, ...]

    @property
    def shards(self) -> tuple[History, ...]:
        """The earlier searches for the same goal, whose episodes count as this one's."""
        mine = _goal(self.history)
        return tuple(one for one in self.others if _goal(one) == mine)


@dataclass
class Memo:
    """Scores of counts, each evaluated once; `known` are those of an interrupted search and of shards."""

    score: Score
    known: dict[bytes, float]
    evaluated: int = 0

    def __call__(self, counts: Counts) -> float:
        """Return the score of counts."""
        key = counts.astype(np.int64).tobytes()
        if key not in self.known:
            self.known[key] = self.score(counts)
            self.evaluated += 1
        return self.known[key]


@dataclass(frozen=True)
class Outcome:
    """The first counts, those to choose among, the scores of all episodes, and how many counts were evaluated."""

    start: Counts
    finalists: tuple[Counts, ...]
    scores: Floats
    evaluated: int


def _goal(history: History) -> tuple[object, ...]:
    run = history.run
    return (run.model, run.data, run.metric, run.budget, run.ratio, history.problem.sizes.tobytes())


def begin(
    model: Model, network: Network, problem: Problem, judge: Judge, samples: Samples, options: Options,
    resumed: History | None,
) -> Beginning:  # fmt: skip
    """Score the two ends of the scale of rewards, and read what earlier searches left.

    Raises UsageError where the interrupted search was another one.
    """
    even = uniform(problem)
    run = Run(
        model.sha256, samples.sha256, judge.metric.name, options.budget.resource, options.budget.ratio,
        options.search, options.start, options.seed, "{}/{}".format(*options.shard),
        judge.score_outputs(judge.wanted), judge.score(network.pruned(even)),
    )  # fmt: skip
    start = prior(problem) if options.start == "prior" else even
    empty = np.zeros((0, problem.units), np.int64)
    history = History(run, problem, start, empty, np.zeros(0), {})
    if resumed is not None and (resumed.run != run or not np.array_equal(resumed.problem.sizes, problem.sizes)):
        differing = [name for name, value in vars(run).items() if getattr(resumed.run, name) != value] or ["units"]
        raise UsageError(
            f"it is of another search: its {', '.join(differing)} differ", subject=str(options.resume),
            remedy="Give the model, data and options that it began with",
        )  # fmt: skip
    return Beginning(history, resumed, read_histories(options.histories))


def make_strategy(problem: Problem, start: Counts, options: Options, histories: Sequence[History]) -> Strategy:
    """Return the strategy that the user asked for; every shard draws numbers of its own."""
    number, shards = options.shard
    seed = options.seed if shards == 1 else int(np.random.SeedSequence([options.seed, number]).generate_state(1)[0])
    if options.search == "random":
        return Random(problem, start, seed)
    if options.search == "hill-climb":
        return HillClimb(problem, start, seed)
    from sartor.tools.prune.strategies.learned import Learned, nearest_of

    if histories and options.transfer != "none":
        note(f"the agent starts from {nearest_of(problem, histories).source}, whose units are most alike")
    return Learned(problem, start, seed, histories, options.transfer, options.assistant)


def episodes_of(options: Options) -> int:
    """Return how many episodes are this shard's, at least the start."""
    number, shards = options.shard
    return max(len(range(number - 1, options.episodes, shards)), 1)


def search(strategy: Strategy, beginning: Beginning, score: Score, options: Options, step: Step) -> Outcome:
    """Run the episodes, at least the start, writing the history after each.

    A strategy is a function of its seed and of what it observes: an interrupted search is replayed from the scores that
    it left, and ends as an unbroken one does.
    """
    history, resumed = beginning.history, beginning.resumed
    target = options.save_history or options.resume
    known: dict[bytes, float] = {}
    for one in (*beginning.shards, *([resumed] if resumed is not None else [])):
        known |= zip(map(_key, one.counts), one.scores.tolist(), strict=True)
    memo = Memo(score, known)
    for episode in range(episodes_of(options)):
        counts = strategy.propose()
        found = memo(counts)
        strategy.observe(counts, float(standardised(np.array(found), history.run.uniform, history.run.original)))
        history = history.with_episode(counts, found)
        if target is not None and (resumed is None or episode >= len(resumed.scores)):
            write_history(history, target)
        if strategy.doubted:
            note(
                f"episode {episode + 1}: the assistant's predictions do not rank as rewards do; it is left out for now"
            )
        step(1)
    if target is not None and (learned := strategy.parameters()):
        write_history(replace(history, learned=learned), target)
    counts, scores = _fitting(history, beginning.shards)
    return Outcome(history.counts[0], _finalists(counts, scores), history.scores, memo.evaluated)


def _finalists(counts: Counts, scores: Floats) -> tuple[Counts, ...]:
    """Return the best counts, each once, best first."""
    best = dict.fromkeys(_key(counts[i]) for i in np.argsort(-scores, kind="stable"))
    return tuple(np.frombuffer(key, np.int64) for key in list(best)[:FINALISTS])


def _fitting(history: History, shards: Sequence[History]) -> tuple[Counts, Floats]:
    """Return the episodes of this search, then those of shards that meet its budget."""
    problem = history.problem
    counts = np.concatenate([history.counts, *(one.counts for one in shards)])
    scores = np.concatenate([history.scores, *(one.scores for one in shards)])
    fits = problem.costs.totals(counts) <= problem.budget
    fits[: len(history.scores)] = True
    return counts[fits], scores[fits]


def _key(counts: Counts) -> bytes:
    return counts.astype(np.int64).tobytes()
