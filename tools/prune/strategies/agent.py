"""The agent: stable-baselines3's DDPG, driven from outside, walk by walk (AMC, section 3; DDPG, arXiv 1509.02971)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import DDPG
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from sartor.tools.prune.problem import Floats, Walk

HIDDEN = (300, 300)
ACTOR_RATE, CRITIC_RATE = 1e-4, 1e-3
TAU = 0.01
BATCH = 64
CAPACITY = 100_000

Parameters = dict[str, NDArray[np.float32]]


class _Shape(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """Tells the sizes of states and actions; nothing ever steps through it."""

    def __init__(self, features: int) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (features,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)


class Memory(ReplayBuffer):
    """Transitions of this search, and of earlier ones, of which every batch holds a share."""

    old: ReplayBuffer | None = None
    share = 0.0

    def sample(self, batch_size: int, env: Any = None) -> ReplayBufferSamples:
        """Draw a batch: first transitions of earlier searches, then of this one."""
        if self.old is None or not self.old.size():
            return super().sample(batch_size, env)
        borrowed = batch_size if not self.size() else round(self.share * batch_size)
        if not borrowed:
            return super().sample(batch_size, env)
        parts = [self.old.sample(borrowed, env)]
        if borrowed < batch_size:
            parts.append(super().sample(batch_size - borrowed, env))
        joined = [torch.cat(column) for column in zip(*(part[:5] for part in parts), strict=True)]
        return ReplayBufferSamples(*joined)


class _Learner(DDPG):
    """DDPG whose actor and critic keep learning rates of their own."""

    def _update_learning_rate(self, optimizers: Any) -> None:
        """Leave the rates as they were set."""


class Agent:
    """An actor and a critic over states of walks, with a memory of transitions."""

    def __init__(self, features: int, seed: int) -> None:
        rates = {"net_arch": list(HIDDEN)}
        with torch.random.fork_rng(devices=[]):
            self._learner = _Learner(
                "MlpPolicy", _Shape(features), learning_rate=CRITIC_RATE, buffer_size=CAPACITY, batch_size=BATCH,
                tau=TAU, gamma=1.0, policy_kwargs=rates, seed=seed, device="cpu", replay_buffer_class=Memory,
            )  # fmt: skip
        self._learner.set_logger(Logger(None, []))
        for group in self._learner.actor.optimizer.param_groups:
            group["lr"] = ACTOR_RATE
        self._rng = np.random.default_rng(seed)

    def act(self, states: NDArray[np.float32]) -> Floats:
        """Return the greedy actions for states (times, features)."""
        with torch.no_grad():
            return np.asarray(self._learner.actor(torch.from_numpy(states)).numpy()[:, 0], np.float64)

    @property
    def memory(self) -> Memory:
        """What it learns from."""
        assert isinstance(self._learner.replay_buffer, Memory)
        return self._learner.replay_buffer

    def remember(self, walk: Walk, reward: float) -> None:
        """Store the transitions of a walk, whose reward comes at its end."""
        _store(self.memory, walk, reward)

    def borrow(self, walks: Iterable[tuple[Walk, float]]) -> None:
        """Store walks of earlier searches with their rewards."""
        if self.memory.old is None:
            self.memory.old = ReplayBuffer(CAPACITY, self._learner.observation_space, self._learner.action_space, "cpu")
        for walk, reward in walks:
            _store(self.memory.old, walk, reward)

    def learn(self, steps: int) -> None:
        """Take gradient steps on batches of the memory, drawn by the agent's own generator.

        They take one thread: the order of sums, and so the search, must not depend on how many there are, and on a busy
        machine threads that wait for each other cost more than they bring to matrices this small.
        """
        state, threads = np.random.get_state(), torch.get_num_threads()
        np.random.seed(int(self._rng.integers(2**32)))
        torch.set_num_threads(1)
        try:
            self._learner.train(steps, BATCH)
        finally:
            torch.set_num_threads(threads)
            np.random.set_state(state)

    def parameters(self) -> Parameters:
        """Return actor, critic and their targets as arrays."""
        return {name: value.detach().numpy().copy() for name, value in self._learner.policy.state_dict().items()}

    def load(self, parameters: Mapping[str, NDArray[np.float32]]) -> None:
        """Start from the parameters of another agent; raises RuntimeError where they do not fit."""
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in parameters.items()}
        self._learner.policy.load_state_dict(cast("Any", tensors))


def _store(buffer: ReplayBuffer, walk: Walk, reward: float) -> None:
    last = len(walk.actions) - 1
    for i, action in enumerate(walk.actions):
        done = i == last
        buffer.add(walk.states[i : i + 1], walk.states[i + 1 : i + 2], np.array([[action]], np.float32),
                   np.array([reward if done else 0.0]), np.array([done]), [{}])  # fmt: skip
