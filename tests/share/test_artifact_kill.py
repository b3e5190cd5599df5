"""Killed and competing writers, in processes of their own."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sartor.share.artifact import quickcheck, read_model, write_model

WRITER = """
import sys
from sartor.share.artifact import read_model, write_model
from sartor.share.signals import Stopped, raise_on_stop
models = [read_model(path).ir for path in sys.argv[3:]]
try:
    with raise_on_stop():
        print("ready", flush=True)
        for turn in range(int(sys.argv[2])):
            write_model(models[turn % len(models)], sys.argv[1], external_above=1 << 30)
except Stopped as stopped:
    sys.exit(128 + stopped.signum)
"""


def start(target: Path, turns: int, *sources: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(target), str(turns), *map(str, sources)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wait_for_writing(folder: Path) -> None:
    """Return as soon as a temporary file is there, so that the signal meets a write under way."""
    until = time.monotonic() + 20
    while not any(folder.glob(".*.part")):
        assert time.monotonic() < until, "the writer wrote nothing"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_writer_leaves_a_whole_file(
    signum: signal.Signals, tmp_path: Path, model_of_size: Callable[[str, int, int], Path]
) -> None:
    sources = [model_of_size(f"source{value}.onnx", 24, value) for value in (1, 2)]
    folder = tmp_path / "out"
    folder.mkdir()
    target = folder / "net.onnx"
    whole = set()
    for source in sources:
        write_model(read_model(source).ir, target)
        whole.add(digest(target))
    for delay in (0.0, 0.004, 0.012, 0.03):
        writer = start(target, 100_000, *sources)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        wait_for_writing(folder)
        time.sleep(delay)
        writer.send_signal(signum)
        assert writer.wait(20) == (143 if signum is signal.SIGTERM else -signal.SIGKILL)
        assert digest(target) in whole
        if signum is signal.SIGTERM:
            assert [path.name for path in folder.iterdir()] == ["net.onnx"]
        for leftover in folder.glob(".*.part"):
            leftover.unlink()


def test_two_writers_leave_one_whole_file(tmp_path: Path, model_of_size: Callable[[str, int, int], Path]) -> None:
    sources = [model_of_size(f"source{value}.onnx", 8, value) for value in (1, 2)]
    folder = tmp_path / "out"
    folder.mkdir()
    target = folder / "net.onnx"
    writers = [start(target, 10, source) for source in sources]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert [path.name for path in folder.iterdir()] == ["net.onnx"]
    assert quickcheck(target) is None
    assert read_model(target).ir.graph.initializers["weight"].const_value.numpy()[0, 0] in (1, 2)  # type: ignore[union-attr]
