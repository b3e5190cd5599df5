"""The search: proposals are evaluated once each, and every episode is kept as soon as it is finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sartor.share.artifact import Model
from sartor.share.console import Step
from sartor.share.errors import UsageError
from sartor.tools.prune.evaluate import Judge
from sartor.tools.prune.history import History, Run, read_histories, read_history, standardised, write_history
from sartor.tools.prune.network import Network
from sartor.tools.prune.plan import Options
from sartor.tools.prune.prepare import Samples
from sartor.tools.prune.problem import Counts, Floats, Problem
from sartor.tools.prune.strategies.base import HillClimb, Random, Strategy
from sartor.tools.prune.strategies.fit import uniform
from sartor.tools.prune.strategies.learned import Learned
from sartor.tools.prune.strategies.prior import prior

Score = Callable[[Counts], float]


@dataclass(frozen=True)
class Beginning:
    """An empty history of this search, the interrupted one that it goes on with, and those of earlier searches."""

    history: History
    resumed: History | None
    others: tuple[History, ...]


@dataclass
class Memo:
    """Scores of counts, each evaluated once; `known` are those of an interrupted search."""

    score: Score
    known: dict[bytes, float]
    found: dict[bytes, float] = field(default_factory=dict)

    def __call__(self, counts: Counts) -> float:
        """Return the score of counts."""
        key = counts.astype(np.int64).tobytes()
        if key not in self.found:
            self.found[key] = self.known[key] if key in self.known else self.score(counts)
        return self.found[key]


@dataclass(frozen=True)
class Outcome:
    """The best counts with their score, the scores of all episodes, and how many different counts were evaluated."""

    best: Counts
    score: float
    scores: Floats
    evaluated: int


def begin(
    model: Model, network: Network, problem: Problem, judge: Judge, samples: Samples, options: Options
) -> Beginning:
    """Score the two ends of the scale of rewards, and read what earlier searches left.

    Raises UsageError where the interrupted search was another one.
    """
    even = uniform(problem)
    run = Run(
        model.sha256, samples.sha256, judge.metric.name, options.budget.resource, options.budget.ratio,
        options.strategy, options.start, options.seed, judge.score_outputs(judge.wanted),
        judge.score(network.pruned(even)),
    )  # fmt: skip
    start = prior(problem) if options.start == "prior" else even
    empty = np.zeros((0, problem.units), np.int64)
    history = History(run, problem, start, empty, np.zeros(0), {})
    resumed = None if options.resume is None else read_history(options.resume)
    if resumed is not None and (resumed.run != run or not np.array_equal(resumed.problem.sizes, problem.sizes)):
        differing = [name for name, value in vars(run).items() if getattr(resumed.run, name) != value] or ["units"]
        raise UsageError(
            f"it is of another search: its {', '.join(differing)} differ", subject=str(options.resume),
            remedy="Give the model, data and options that it began with",
        )  # fmt: skip
    return Beginning(history, resumed, read_histories(options.histories))


def make_strategy(problem: Problem, start: Counts, options: Options, histories: Sequence[History]) -> Strategy:
    """Return the strategy that the user asked for."""
    if options.strategy == "random":
        return Random(problem, start, options.seed)
    if options.strategy == "hill-climb":
        return HillClimb(problem, start, options.seed)
    return Learned(problem, start, options.seed, histories, options.transfer, options.assistant)


def search(strategy: Strategy, beginning: Beginning, score: Score, options: Options, step: Step) -> Outcome:
    """Run the episodes, at least the start, writing the history after each.

    A strategy is a function of its seed and of what it observes: an interrupted search is replayed from the scores that
    it left, and ends as an unbroken one does.
    """
    history, resumed = beginning.history, beginning.resumed
    target = options.save_history or options.resume
    known = {} if resumed is None else dict(zip(map(_key, resumed.counts), resumed.scores.tolist(), strict=True))
    memo = Memo(score, known)
    for episode in range(max(options.episodes, 1)):
        counts = strategy.propose()
        found = memo(counts)
        strategy.observe(counts, float(standardised(np.array(found), history.run.uniform, history.run.original)))
        history = history.with_episode(counts, found)
        if target is not None and (resumed is None or episode >= len(resumed.scores)):
            write_history(history, target)
        step(1)
    if target is not None and isinstance(strategy, Learned):
        write_history(replace(history, learned=strategy.agent.parameters()), target)
    best = int(np.argmax(history.scores))
    return Outcome(history.counts[best], float(history.scores[best]), history.scores, len(memo.found))


def _key(counts: Counts) -> bytes:
    return counts.astype(np.int64).tobytes()
