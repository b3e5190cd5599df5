"""DDPG over walks through the units, with what earlier searches taught: weights, transitions, and an assistant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from sartor.tools.prune.assistant import Assistant
from sartor.tools.prune.history import History
from sartor.tools.prune.problem import Counts, Floats, Problem, Walk, Walker
from sartor.tools.prune.strategies.agent import Agent
from sartor.tools.prune.strategies.base import Transfer, changed
from sartor.tools.prune.strategies.fit import filled

WARM_UP, SHORT_WARM_UP = 20, 4
"""Episodes of even exploration before the agent acts, from scratch and with what others learned."""

NOISE, DECAY = 0.5, 0.97
"""Standard deviation of the action's noise, and its factor an episode."""

STEPS = 10
"""Gradient steps an episode."""

OFFLINE_STEPS = 200
"""Gradient steps on transitions of earlier searches before the first episode."""

VIRTUAL = 32
"""Walks of the agent, and changes of the best counts so far, of which the assistant picks one."""

SHARE, FADED = 0.25, 60
"""The share of earlier transitions in a batch at first, and the episode at which it is 0."""


class Learned:
    """The agent of AMC, with transfer (weights), augmented transfer (transitions too) and assistant learning."""

    def __init__(
        self, problem: Problem, start: Counts, seed: int, histories: Sequence[History], transfer: Transfer, assist: bool
    ) -> None:
        self._problem, self._start = problem, start
        self._walker = Walker(problem, start)
        self._rng = np.random.default_rng(seed)
        self.agent = Agent(self._walker.features, seed)
        self._episode = 0
        self._best, self._reward = start, -np.inf
        self._seen: set[bytes] = set()
        self.doubted = False
        """Whether the assistant has lost its trust by the last reward."""

        earlier = histories if transfer != "none" else ()
        self._warm_up = SHORT_WARM_UP if earlier else WARM_UP
        if earlier:
            self._transfer(earlier, augmented=transfer == "augmented")
        known = [(one.problem, one.counts, one.rewards()) for one in histories]
        self.assistant = Assistant(problem, known) if assist else None

    def propose(self) -> Counts:
        """Return the start, then the counts of a noisy walk, the most promising of many with an assistant."""
        if self._episode == 0:
            return self._start
        order = self._rng.permutation(self._problem.units)
        if self.assistant is None:
            return filled(self._problem, self._walks(1)[0].counts, order)
        walked = np.array([walk.counts for walk in self._walks(VIRTUAL)])
        found = np.concatenate([walked, changed(self._problem, self._best, self._rng, VIRTUAL)])
        if self.assistant.trusted:
            found = found[np.argsort(-self.assistant.draw(found, self._rng), kind="stable")]
        else:
            found = self._rng.permutation(found)
        # What was evaluated before would teach nothing.
        tried = (filled(self._problem, one, order) for one in found)
        return next((one for one in tried if one.tobytes() not in self._seen), self._best)

    def observe(self, counts: Counts, reward: float) -> None:
        """Store the walk, let the agent and the assistant learn."""
        self.agent.remember(self._walker.retrace(counts), reward)
        self._episode += 1
        self._seen.add(counts.tobytes())
        if reward > self._reward:
            self._best, self._reward = counts, reward
        if self.assistant is not None:
            before = self.assistant.trusted
            self.assistant.observe(counts, reward)
            self.doubted = before and not self.assistant.trusted
        self.agent.memory.share = SHARE * max(1 - self._episode / FADED, 0.0)
        if self._episode >= self._warm_up:
            self.agent.learn(STEPS)

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """Return those of the agent."""
        return self.agent.parameters()

    def _walks(self, times: int) -> list[Walk]:
        if self._episode < self._warm_up and self.agent.memory.old is None:
            return self._walker.walk(lambda states: self._rng.uniform(-1, 1, len(states)), times)
        spread = NOISE * DECAY ** max(self._episode - self._warm_up, 0)
        return self._walker.walk(lambda states: self._noisy(self.agent.act(states), spread), times)

    def _noisy(self, actions: Floats, spread: float) -> Floats:
        """Draw from normal distributions about actions, cut to [-1, 1] (AMC, section 3.2), by their quantiles."""
        low, high = ndtr((-1 - actions) / spread), ndtr((1 - actions) / spread)
        drawn = actions + spread * ndtri(low + (high - low) * self._rng.random(len(actions)))
        return np.asarray(np.clip(drawn, -1, 1), np.float64)

    def _transfer(self, histories: Sequence[History], augmented: bool) -> None:
        """Start from the nearest history's agent; learn from its transitions, or from those of all, relabelled."""
        nearest = nearest_of(self._problem, histories)
        if nearest.learned:
            self.agent.load(nearest.learned)
        for history in histories if augmented else (nearest,):
            self.agent.borrow(walks_of(history, relabel=augmented))
        self.agent.learn(OFFLINE_STEPS)
        if not augmented:
            self.agent.memory.old = None


def walks_of(history: History, relabel: bool) -> list[tuple[Walk, float]]:
    """Recompute the walks of a history with their standardised rewards.

    With `relabel` the target of each is what it really spent: it met that budget too (hindsight, arXiv 1707.01495).
    """
    found = []
    for counts, reward in zip(history.counts, history.rewards(), strict=True):
        problem = history.problem
        if relabel:
            problem = replace(problem, budget=problem.costs.total(counts))
        found.append((Walker(problem, history.base).retrace(counts), float(reward)))
    return found


def nearest_of(problem: Problem, histories: Sequence[History]) -> History:
    """Return the history whose units are most alike; of equals the first."""
    return min(histories, key=lambda one: distance(problem, one.problem))


def distance(left: Problem, right: Problem) -> float:
    """Return how far apart two problems are: the mean distance of each unit's facts to the nearest of the other."""
    apart: NDArray[np.float64] = np.abs(left.facts[:, None] - right.facts[None]).sum(-1)
    return float(apart.min(1).mean() + apart.min(0).mean())
