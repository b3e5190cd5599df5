"""Strategies stay within the budget, are deterministic, and learn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import spearmanr
from tests.kits import search_kit as kit

from sartor.tools.prune.assistant import Assistant
from sartor.tools.prune.problem import Problem, Walker
from sartor.tools.prune.strategies.base import HillClimb, Random, Strategy, changed
from sartor.tools.prune.strategies.fit import filled, fitted, uniform
from sartor.tools.prune.strategies.learned import Learned, walks_of

PROBLEM = kit.problem(0)
EARLIER = kit.history(PROBLEM, *kit.search(Random(PROBLEM, uniform(PROBLEM), 5), PROBLEM, 12), {})

ARMS: dict[str, Callable[[Problem, int], Strategy]] = {
    "random": lambda problem, seed: Random(problem, uniform(problem), seed),
    "hill-climb": lambda problem, seed: HillClimb(problem, uniform(problem), seed),
    "ddpg": lambda problem, seed: Learned(problem, uniform(problem), seed, (), "none", False),
    "assistant": lambda problem, seed: Learned(problem, uniform(problem), seed, (), "none", True),
    "weights": lambda problem, seed: Learned(problem, uniform(problem), seed, (EARLIER,), "weights", False),
    "all": lambda problem, seed: Learned(problem, uniform(problem), seed, (EARLIER,), "augmented", True),
}


@pytest.mark.parametrize("arm", ARMS)
def test_the_same_seed_gives_the_same_search(arm: str) -> None:
    """Whatever else draws random numbers in between."""
    first, _ = kit.search(ARMS[arm](PROBLEM, 7), PROBLEM, 22)
    np.random.default_rng().random()
    np.random.seed(3)
    second, _ = kit.search(ARMS[arm](PROBLEM, 7), PROBLEM, 22)
    other, _ = kit.search(ARMS[arm](PROBLEM, 8), PROBLEM, 22)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert np.array_equal(first[0], uniform(PROBLEM))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("step", [1, 2, 4])
def test_counts_fit_the_budget_and_fill_it(seed: int, step: int) -> None:
    problem = kit.problem(seed, step=step)
    rng = np.random.default_rng(seed)
    counts = fitted(problem, rng.random(problem.units) + 0.05, rng.permutation(problem.units))
    assert problem.costs.total(counts) <= problem.budget
    assert (counts >= problem.least).all()
    assert (counts <= problem.sizes).all()
    assert all(count % step == 0 or count == size for count, size in zip(counts, problem.sizes, strict=True))
    for unit in range(problem.units):
        more = counts.copy()
        more[unit] = min(more[unit] + step, problem.sizes[unit])
        assert more[unit] == counts[unit] or problem.costs.total(more) > problem.budget
    assert np.array_equal(filled(problem, counts, np.arange(problem.units)), counts)


def test_a_walk_stays_within_the_wall() -> None:
    walker = Walker(PROBLEM, uniform(PROBLEM))
    rng = np.random.default_rng(0)
    for walk in walker.walk(lambda states: rng.uniform(-1, 1, len(states)), 50):
        assert PROBLEM.costs.total(walk.counts) <= PROBLEM.budget
        assert (walk.counts >= PROBLEM.least).all()
        assert np.isfinite(walk.states).all()
        assert np.abs(walk.actions).max() <= 1


def test_counts_are_walked_to_again() -> None:
    """The executed actions lead to the counts that they came from."""
    walker = Walker(PROBLEM, uniform(PROBLEM))
    rng = np.random.default_rng(0)
    for walk in walker.walk(lambda states: rng.uniform(-0.6, 0.6, len(states)), 20):
        again = walker.retrace(walk.counts)
        assert np.array_equal(again.counts, walk.counts)
        np.testing.assert_allclose(again.actions, walk.actions, atol=1e-12)


def test_the_assistant_learns_what_matters() -> None:
    """After some episodes its predictions rank allocations that it has not seen."""
    rng = np.random.default_rng(4)
    assistant = Assistant(PROBLEM)
    base, original = kit.score(PROBLEM, uniform(PROBLEM)), kit.score(PROBLEM, PROBLEM.sizes)
    drawn = changed(PROBLEM, uniform(PROBLEM), rng, 90)
    rewards = np.array([(kit.score(PROBLEM, one) - base) / (original - base) for one in drawn])
    for counts, reward in zip(drawn[:60], rewards[:60], strict=True):
        assistant.observe(counts, float(reward))
    assert assistant.trusted
    assert spearmanr(assistant.predict(drawn[60:]), rewards[60:]).statistic > 0.9
    sampled = assistant.draw(drawn, np.random.default_rng(0))
    assert np.array_equal(sampled, assistant.draw(drawn, np.random.default_rng(0)))
    assert spearmanr(sampled, rewards).statistic > 0.7


def test_an_assistant_that_is_wrong_is_not_trusted() -> None:
    assistant, rng = Assistant(PROBLEM), np.random.default_rng(0)
    for counts in changed(PROBLEM, uniform(PROBLEM), rng, 25):
        assistant.observe(counts, float(rng.normal()))
    assert not assistant.trusted


@pytest.mark.parametrize("arm", ["assistant", "all"])
def test_the_assistant_beats_chance(arm: str) -> None:
    """On searches of thirty episodes, against allocations drawn at random."""
    ours, theirs = [], []
    for seed in range(6):
        problem = kit.problem(seed)
        earlier = kit.history(problem, *kit.search(Random(problem, uniform(problem), 5), problem, 12), {})
        history = (earlier,) if arm == "all" else ()
        learned = Learned(problem, uniform(problem), seed, history, "augmented" if history else "none", True)
        ours.append(kit.search(learned, problem, 30)[1].max())
        theirs.append(kit.search(Random(problem, uniform(problem), seed), problem, 30)[1].max())
    assert np.mean(ours) > np.mean(theirs)
    assert sum(a > b for a, b in zip(ours, theirs, strict=True)) >= 5


def test_relabelled_walks_meet_their_budgets() -> None:
    """An episode is a valid one for the budget that it really spent."""
    for (walk, reward), counts in zip(walks_of(EARLIER, relabel=True), EARLIER.counts, strict=True):
        assert np.array_equal(walk.counts, counts)
        assert np.isfinite(reward)
        left = walk.states[0, -3]
        spent = PROBLEM.costs.total(counts) - PROBLEM.costs.total(PROBLEM.least)
        assert left == pytest.approx(spent / PROBLEM.costs.total(PROBLEM.sizes), abs=1e-6)
