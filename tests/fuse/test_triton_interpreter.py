"""Triton kernels in the interpreter, in processes of their own: Triton asks for it once, when it is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "interpreted"


def run(name: str, marked: str) -> None:
    """Run the tests of one file with the interpreter and show what fails."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-m",
        marked,
        FOLDER / f"{name}.py",
    ]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=FOLDER.parents[2])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.parametrize("name", ["rules", "chains", "groups", "kernels", "session"])
def test_interpreted(name: str) -> None:
    """Kernels compute what ONNX defines."""
    run(name, "not slow")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rules", "chains", "session"])
def test_interpreted_slowly(name: str) -> None:
    """The same for more types and chains."""
    run(name, "slow")
