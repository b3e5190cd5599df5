"""Layers at the same time: the order of launches, and results of a stack whose launches run as Python."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.kits import sparse_rnn_gpu_kit as kit

from sartor.share.errors import InputRefusedError
from sartor.tools.sparse_rnn.gpu.limits import Gpu, Settings
from sartor.tools.sparse_rnn.gpu.stack import Stack, Stage, schedule
from sartor.tools.sparse_rnn.oracle import run

CPU = torch.device("cpu")


def test_launches_come_after_what_they_need_and_side_by_side() -> None:
    stages = schedule(3, 10, 4)
    assert stages[:4] == (Stage(0, 0, 4), Stage(0, 4, 8), Stage(1, 0, 4), Stage(0, 8, 10))
    for i, stage in enumerate(stages):
        before = stages[:i]
        assert stage.layer == 0 or any((one.layer, one.first) == (stage.layer - 1, stage.first) for one in before)
        assert stage.first == 0 or any((one.layer, one.end) == (stage.layer, stage.first) for one in before)
    assert sorted((one.layer, one.first, one.end) for one in stages) == [
        (layer, first, min(first + 4, 10)) for layer in range(3) for first in (0, 4, 8)
    ]
    assert schedule(2, 0, 4) == ()


@pytest.mark.parametrize("steps", [1, 4, 9])
def test_a_stack_is_one_layer_after_the_other(steps: int) -> None:
    cells = [kit.cell_of("LSTM"), kit.cell_of("GRU"), kit.cell_of("LSTM")]
    layers = [kit.layer_of(cell, 32, 5 if i == 0 else 32, 0.3, "row", i) for i, cell in enumerate(cells)]
    machine = kit.Simulated()
    inputs = [layer.weights.w for layer in layers]
    stack = Stack([kit.source(layer) for layer in layers], inputs, Settings(2, "fp16"), machine, CPU, 4)
    x = np.random.default_rng(0).normal(0, 1, (steps, 2, 5)).astype(np.float32)
    found = stack.run(torch.from_numpy(x), torch.zeros(1, dtype=torch.int32))
    wanted = x
    for layer in layers:
        wanted = run(layer.cell, layer.weights, wanted)[0][:, 0]
    np.testing.assert_allclose(found, wanted, atol=4e-3)
    assert len(machine.launches) == 3 * -(-steps // 4)


def test_layers_that_do_not_fit_side_by_side_are_refused() -> None:
    layer = kit.layer_of(kit.cell_of("LSTM"), 64, 64, 0.5, "row")
    machine = kit.Simulated()
    machine.facts = Gpu(90, 4, 36_000)
    settings, w = Settings(2, "fp16"), layer.weights.w
    Stack([kit.source(layer)], [w], settings, machine, CPU)
    with pytest.raises(InputRefusedError, match="do not fit"):
        Stack([kit.source(layer)] * 4, [w] * 4, settings, machine, CPU)
    reverse = replace(layer, cell=kit.cell_of("LSTM", "reverse"))
    with pytest.raises(InputRefusedError, match="only forward layers"):
        Stack([kit.source(reverse)], [w], settings, machine, CPU)
