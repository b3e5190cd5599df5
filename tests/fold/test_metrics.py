"""What a run writes down besides its lines of JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sartor.tools.fold.metrics import FILE, TENSORBOARD_FOLDER, open_log

STEP = {"loss": 2.5, "terms": {"fape": 0.5}, "chains": ("a", "b"), "recycles": 1}


class Writer:
    """Stands in for TensorBoard's, which is no dependency."""

    def __init__(self, folder: Path, purge_step: int) -> None:
        self.made, self.scalars, self.closed = (folder, purge_step), list[tuple[str, float, int]](), False

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[Writer]:
    made: list[Writer] = []
    module: Any = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = lambda folder, purge_step: made.append(Writer(folder, purge_step)) or made[-1]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return made


def test_tensorboard_gets_every_number(writers: list[Writer], tmp_path: Path) -> None:
    with open_log(tmp_path, 4, mlperf=False) as log:
        log.event("step", 5, STEP)
        log.event("evaluation", 5, {"lddt_ca": None, "chains": {"a": 0.5}})
    (writer,) = writers
    # Events of steps that are taken again are void.
    assert writer.made == (tmp_path / TENSORBOARD_FOLDER, 5)
    assert writer.scalars == [
        ("step/loss", 2.5, 5), ("step/terms/fape", 0.5, 5), ("step/recycles", 1, 5), ("evaluation/chains/a", 0.5, 5),
    ]  # fmt: skip
    assert writer.closed


def test_tensorboard_need_not_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with open_log(tmp_path, 0, mlperf=False) as log:
        log.event("step", 1, STEP)
    assert (tmp_path / FILE).read_text().count("\n") == 1
    assert not (tmp_path / TENSORBOARD_FOLDER).exists()
