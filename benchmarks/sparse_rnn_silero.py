"""What sparsity costs a detector of speech (Silero VAD, 16 kHz): probabilities and decisions before and after.

The detector is made sparse in one shot, and with distillation on the first part of a recording. Training samples are
single windows with the states that the original has there, at several offsets, so that a sample needs no steps before
it. The rest of the recording judges: windows in order, each with the state that the judged model left behind.
"""

from __future__ import annotations

import os
import sys
import tempfile
import wave
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnxruntime
from _common import Bar, Outcome, finish, parser

from sartor.share.runtime import load
from sartor.tools.sparse_rnn.pattern import parse_pattern
from sartor.tools.sparse_rnn.plan import Options, Tuning
from sartor.tools.sparse_rnn.sparsify import sparsify

Array = np.ndarray
COLUMNS = ("density", "trained", "mean difference", "largest", "same decisions")
RATE, WINDOW, BEFORE, UNITS = 16_000, 512, 64, 128
"""Samples a second, of a window, and of the one before it that is fed again; hidden units."""

DECISION = 0.5
TRAINED_SECONDS = 40
ONE_SHOT, DISTILLED = 0.5, 0.3


@dataclass(frozen=True)
class Sizes:
    """Of the training; `stride` is how far the offsets of windows lie apart."""

    epochs: int = 40
    stride: int = 128
    rate: float = 1e-3
    seconds: int | None = None


@dataclass(frozen=True)
class Result:
    """How far probabilities are off on average and at most, and the share of decisions that stay."""

    density: float
    trained: bool
    mean: float
    largest: float
    same: float

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        return (
            f"{self.density:.0%}", "distilled" if self.trained else "one shot",
            f"{self.mean:.4f}", f"{self.largest:.3f}", f"{self.same:.2%}",
        )  # fmt: skip


def read(path: Path, seconds: int | None) -> Array:
    """Return the samples of a recording between -1 and 1."""
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        frames = file.readframes(file.getnframes() if seconds is None else seconds * RATE)
    return np.frombuffer(frames, np.int16).astype(np.float32) / 32768


def listen(session: onnxruntime.InferenceSession, samples: Array) -> tuple[Array, Array, Array]:
    """Return what each window is fed, windows [n, 576] and states [n, 2, 128], and the probabilities [n]."""
    state, before = np.zeros((2, 1, UNITS), np.float32), np.zeros((1, BEFORE), np.float32)
    windows, states, found = [], [], []
    for window in samples[: len(samples) // WINDOW * WINDOW].reshape(-1, 1, WINDOW):
        fed = np.concatenate([before, window], axis=1)
        windows.append(fed[0])
        states.append(state[:, 0])
        feed = {"input": fed, "state": state, "sr": np.array(RATE, np.int64)}
        probability, state = session.run(None, feed)
        found.append(float(probability[0, 0]))
        before = fed[:, -BEFORE:]
    return np.array(windows), np.array(states), np.array(found)


def stock(path: Path) -> onnxruntime.InferenceSession:
    """Open a model in stock onnxruntime, one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def write(path: Path, model: Path, train: Array, held_out: Array, stride: int) -> int:
    """Write windows with the states that a model has there; return how many there are to train with."""
    session = stock(model)
    with h5py.File(path, "w") as file:
        for split, part, offsets in (("train", train, range(0, WINDOW, stride)), ("val", held_out, [0])):
            windows, states, _ = zip(*(listen(session, part[offset:]) for offset in offsets), strict=True)
            file[f"{split}/x/input"], file[f"{split}/x/state"] = np.concatenate(windows), np.concatenate(states)
            file[f"{split}/x/sr"] = RATE
        return len(file["train/x/input"])


def judge(model: Path, original: Array, held_out: Array, density: float, trained: bool) -> Result:
    """Compare a sparse model with the original; exits where a session of ours differs from the stock one."""
    (*_, found), (*_, ours) = listen(stock(model), held_out), listen(load(model, threads=1), held_out)
    if np.abs(found - ours).max() > 1e-3:
        sys.exit(f"{model.name}: sessions differ by {np.abs(found - ours).max():.1e}")
    off = np.abs(found - original)
    same = (found > DECISION) == (original > DECISION)
    return Result(density, trained, float(off.mean()), float(off.max()), float(same.mean()))


def measure(folder: Path, source: Path, samples: Array, sizes: Sizes) -> tuple[list[Result], dict[str, Any]]:
    """Make the detector sparse in all ways; return what that costs on the rest of the recording, and the settings."""
    cut = int(len(samples) * TRAINED_SECONDS / 60) // WINDOW * WINDOW
    count = write(folder / "windows.h5", source, samples[:cut], samples[cut:], sizes.stride)
    *_, original = listen(stock(source), samples[cut:])
    tuning = Tuning(str(folder / "windows.h5"), sizes.epochs, sizes.rate, True, seed=0, threads=1)
    results = []
    for density, how in ((ONE_SHOT, None), (DISTILLED, None), (DISTILLED, tuning)):
        options = Options(density, parse_pattern("balanced:32"))
        sparsify(str(source), str(folder / "sparse.onnx"), options, None, how)
        results.append(judge(folder / "sparse.onnx", original, samples[cut:], density, how is not None))
        print(*results[-1].cells(), file=sys.stderr, flush=True)
    return results, {**asdict(sizes), "windows": count, "held_out": len(original)}


def bars(results: list[Result]) -> tuple[Bar, ...]:
    """Return what the detector may lose."""
    half, _, distilled = results
    return (
        Bar("mean difference at 50 %, one shot", half.mean, 0.025, False),
        Bar("decisions that stay at 50 %, one shot", half.same, 0.97, True),
        Bar("mean difference at 30 %, distilled, over that at 50 %, one shot", distilled.mean / half.mean, 1.0, False),
        Bar("decisions that stay at 30 %, distilled", distilled.same, 0.97, True),
    )


def main() -> None:
    """Measure one shot and distillation on the recording of SARTOR_DATA."""
    options = parser(__doc__).parse_args()
    if "SARTOR_DATA" not in os.environ:
        print("sparse_rnn_silero: left out, SARTOR_DATA names no folder with the detector and speech", file=sys.stderr)
        return
    folder = Path(os.environ["SARTOR_DATA"], "speech")
    sizes = Sizes(2, 512, seconds=6) if options.quick else Sizes()
    samples = read(folder / "speech_16k.wav", sizes.seconds)
    with tempfile.TemporaryDirectory() as name:
        results, settings = measure(Path(name), folder / "silero_vad_16k_op15.onnx", samples, sizes)
    rows: tuple[dict[str, Any], ...] = tuple(asdict(one) for one in results)
    cells = tuple(one.cells() for one in results)
    finish(Outcome("sparse_rnn_silero", settings, COLUMNS, cells, rows, bars(results)), options)


if __name__ == "__main__":
    main()
