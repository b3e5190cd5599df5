"""What the tests of the lowering share: small exports of the benchmarks' torch models."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from tests.conftest import ROOT

# The benchmarks are scripts: they import each other from their own folder.
sys.path.insert(0, str(ROOT / "benchmarks"))

NAMES = ("encoder", "resnet", "mobilenet", "lstm", "decoder")


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that exports the small variant of a torch model, once."""
    from models import export

    folder = tmp_path_factory.mktemp("exports")
    return cache(lambda name: export(name, folder, small=True))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Keep torch from taking cores that other tests use."""
    torch.set_num_threads(1)
