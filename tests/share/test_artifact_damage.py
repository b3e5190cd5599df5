"""Truncation and bit flips: a damaged model reads fine or is refused, and nothing else ever happens."""

from __future__ import annotations

import random
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from sartor.share.artifact import quickcheck, read_model
from sartor.share.errors import InputRefusedError


def survives(path: Path) -> bool:
    """Tell whether a file reads fine; anything but a refusal is an error of ours."""
    reason = quickcheck(path)
    assert reason is None or "\n" not in reason
    try:
        model = read_model(path)
    except InputRefusedError:
        return False
    for value in model.ir.graph.initializers.values():
        if value.const_value is not None:
            value.const_value.numpy()
    return True


def test_truncation_at_64_points_is_refused(small_model: Path) -> None:
    data = small_model.read_bytes()
    intact = [
        size
        for size in sorted({len(data) * step // 64 for step in range(64)})
        if small_model.write_bytes(data[:size]) >= 0 and survives(small_model)
    ]
    assert intact == []
    small_model.write_bytes(data[:100])
    with pytest.raises(InputRefusedError) as caught:
        read_model(small_model)
    assert str(caught.value).startswith(f"{small_model}: the model is cut short, 100 bytes of at least ")
    assert str(caught.value).endswith(" are here. Download, copy or export it again")


@pytest.mark.filterwarnings("ignore:Ignoring unknown external data key")
@pytest.mark.parametrize("external", [False, True])
def test_bit_flips_read_fine_or_are_refused(
    external: bool, small_model: Path, external_model: Callable[..., Path]
) -> None:
    path = external_model() if external else small_model
    data = path.read_bytes()
    chance = random.Random(20240501)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = {False: 0, True: 0}
    for _ in range(300):
        flipped = bytearray(data)
        for bit in chance.sample(range(8 * len(data)), chance.choice((1, 1, 2, 8))):
            flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        outcomes[survives(path)] += 1
    assert min(outcomes.values()) > 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_every_single_byte_may_be_lost(small_model: Path) -> None:
    data = small_model.read_bytes()
    for position in range(0, len(data), 3):
        small_model.write_bytes(data[:position] + data[position + 1 :])
        survives(small_model)
