"""Rates, clipping, the average, and which chains are drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sartor.tools.fold.config import OptimiserConfig
from sartor.tools.fold.evaluate import Judgement
from sartor.tools.fold.optimise.average import Average
from sartor.tools.fold.optimise.clip import Gradients
from sartor.tools.fold.optimise.rate import rate_at
from sartor.tools.fold.sampler import make_sampler


@pytest.mark.parametrize(
    ("step", "rate"), [(1, 1e-6), (500, 5e-4), (1000, 1e-3), (50_000, 1e-3), (50_001, 9.5e-4), (100_001, 9.025e-4)]
)
def test_the_rate_warms_up_and_steps_down(step: int, rate: float) -> None:
    assert rate_at(step, OptimiserConfig()) == pytest.approx(rate)


def test_no_warm_up() -> None:
    assert rate_at(1, replace(OptimiserConfig(), warm_up=0)) == 1e-3


def settled(by_sample: bool, clip: float, samples: list[list[float]]) -> tuple[Tensor, float]:
    """Return the gradient of one parameter after passes with these gradients, and the norm that is told."""
    one = nn.Parameter(torch.zeros(2))
    one.grad = torch.full((2,), 7.0)
    sums = Gradients([one], clip, by_sample)
    for gradient in samples:
        one.grad = torch.tensor(gradient)
        sums.add(1)
    norm = float(sums.settle())
    assert one.grad is not None
    return one.grad, norm


def test_each_sample_is_clipped_before_they_are_added() -> None:
    found, norm = settled(True, 1.0, [[3.0, 4.0], [0.0, 0.5]])
    torch.testing.assert_close(found, torch.tensor([0.3, 0.65]))
    assert norm == pytest.approx(2.75)


def test_a_whole_step_is_clipped_by_its_mean() -> None:
    found, norm = settled(False, 1.0, [[3.0, 4.0], [3.0, 4.0]])
    torch.testing.assert_close(found, torch.tensor([0.6, 0.8]))
    assert norm == pytest.approx(5.0)


def test_what_was_there_before_a_step_does_not_count() -> None:
    found, _ = settled(False, 100.0, [[1.0, 0.0]])
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0]))


def test_the_average_starts_at_once_and_slows_down() -> None:
    one = nn.Parameter(torch.zeros(1))
    average = Average([one], 0.9)
    with torch.no_grad():
        one.fill_(1.0)
    average.update(1)
    torch.testing.assert_close(average.values[0], torch.tensor([9 / 11]))
    average.update(10_000)
    torch.testing.assert_close(average.values[0], torch.tensor([1 - 0.9 * 2 / 11]))
    with average.applied():
        assert one.item() == average.values[0].item()
    assert one.item() == 1.0


def test_chains_are_drawn_by_length_and_cluster() -> None:
    sampler = make_sampler([100, 256, 512, 2000], [1, 2, 1, 4], seed=3)
    drawn = np.bincount([sampler.draw(step, index) for step in range(4000) for index in range(2)], minlength=4)
    wanted = np.array([256, 128, 512, 128]) / 1024
    np.testing.assert_allclose(drawn / 8000, wanted, atol=0.02)
    assert [sampler.draw(7, index) for index in range(9)] == [sampler.draw(7, index) for index in range(9)]


def test_a_judgement_of_nothing_has_no_mean() -> None:
    assert Judgement({}, 3).lddt_ca is None
    assert Judgement({"a": 0.5, "b": 1.0}, 0).lddt_ca == 0.75
