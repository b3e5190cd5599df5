"""Sizes and chances that can't go together are refused."""

from __future__ import annotations

import pytest

from sartor.tools.fold.data.config import DataConfig


def test_presets_are_those_of_the_paper() -> None:
    first, second = DataConfig.initial_training(), DataConfig.finetuning()
    assert (first.crop_size, first.clusters + first.templates, first.extra) == (256, 128, 1024)
    assert (second.crop_size, second.clusters + second.templates, second.extra) == (384, 512, 5120)
    assert DataConfig.tiny().crop_size < 100


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"crop_size": 0}, "data.crop_size and data.clusters are at least 1"),
        ({"clusters": 0}, "data.crop_size and data.clusters are at least 1"),
        ({"templates": -1}, "data.templates is at least 0"),
        ({"masked": 1.5}, "data.masked is from 0 to 1"),
        ({"masked_same": 0.9}, "data.masked_uniform, masked_profile and masked_same are at most 1 together"),
    ],
)
def test_what_does_not_go_together_is_refused(changed: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(**changed)  # type: ignore[arg-type]
