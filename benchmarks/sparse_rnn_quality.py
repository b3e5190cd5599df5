"""What sparsity costs a language model of characters: an LSTM on the text of Python's own documentation topics.

The dense model is trained with torch, written as ONNX, and made sparse by `sartor sparsify-rnn` with training on the
same text. Bits a character are those of stock onnxruntime on text that training does not see; sessions of ours have to
agree.
"""

from __future__ import annotations

import pydoc_data.topics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import onnxruntime
import torch
from _common import Bar, Outcome, finish, parser
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from sartor.share.runtime import load
from sartor.tools.sparse_rnn.pattern import parse_pattern
from sartor.tools.sparse_rnn.plan import Options, Tuning
from sartor.tools.sparse_rnn.sparsify import sparsify

Array = np.ndarray
COLUMNS = ("density", "pattern", "seed", "dense bits", "one shot", "trained", "MiB")
BATCH, STEPS, EMBEDDED = 64, 64, 64
BOUNDS = {0.3: 0.03, 0.1: 0.16}
"""How many bits a character a density may cost."""


@dataclass(frozen=True)
class Sizes:
    """Of the model and its training."""

    units: int = 256
    epochs: int = 16
    tuned: int = 6
    limit: int | None = None


@dataclass(frozen=True)
class Text:
    """The text as numbers, cut in sequences [n, STEPS + 1]; every tenth is held out."""

    alphabet: int
    train: Array
    held_out: Array


class Model(nn.Module):
    """Characters to logits of the next."""

    def __init__(self, alphabet: int, units: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(alphabet, EMBEDDED)
        self.lstm = nn.LSTM(EMBEDDED, units)
        self.head = nn.Linear(units, alphabet)

    def forward(self, x_TB: torch.Tensor) -> torch.Tensor:
        """Return logits [T, B, alphabet]."""
        return self.head(self.lstm(self.embedding(x_TB))[0])


def read(sizes: Sizes) -> Text:
    """Return the text."""
    topics = pydoc_data.topics.topics
    text = "".join(topics[name] for name in sorted(topics))
    letters = {letter: place for place, letter in enumerate(sorted(set(text)))}
    numbers = np.array([letters[letter] for letter in text])
    count = (len(numbers) - 1) // STEPS
    rows = np.stack([numbers[place * STEPS : place * STEPS + STEPS + 1] for place in range(count)])[: sizes.limit]
    held = np.arange(len(rows)) % 10 == 9
    return Text(len(letters), rows[~held], rows[held])


def train_dense(text: Text, sizes: Sizes, seed: int) -> Model:
    """Train the dense model."""
    torch.manual_seed(seed)
    model, generator = Model(text.alphabet, sizes.units), torch.Generator().manual_seed(seed)
    rows = torch.from_numpy(text.train)
    steps = sizes.epochs * -(-len(rows) // BATCH)
    optimizer = torch.optim.Adam(model.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(sizes.epochs):
        for batch in torch.split(torch.randperm(len(rows), generator=generator), BATCH):
            logits = model(rows[batch, :-1].T)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), rows[batch, 1:].T.flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model


def write(model: Model, path: Path) -> None:
    """Write the model as ONNX; torch has the gates i f g o, ONNX i o f c."""
    units = model.lstm.hidden_size

    def gates(tensor: torch.Tensor) -> Array:
        i, f, c, o = tensor.detach().numpy().reshape(4, units, -1)
        return np.ascontiguousarray(np.concatenate([i, o, f, c]))

    lstm = model.lstm
    bias = np.concatenate([gates(lstm.bias_ih_l0).ravel(), gates(lstm.bias_hh_l0).ravel()])
    arrays = {
        "E": model.embedding.weight.detach().numpy(), "W": gates(lstm.weight_ih_l0)[None],
        "R": gates(lstm.weight_hh_l0)[None], "B": bias[None], "V": model.head.weight.detach().numpy().T.copy(),
        "b": model.head.bias.detach().numpy(), "one": np.array([1]),
    }  # fmt: skip
    nodes = [
        helper.make_node("Gather", ["E", "ids"], ["embedded"]),
        helper.make_node("LSTM", ["embedded", "W", "R", "B"], ["y"], hidden_size=units, name="lstm"),
        helper.make_node("Squeeze", ["y", "one"], ["states"]),
        helper.make_node("MatMul", ["states", "V"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["logits"]),
    ]
    alphabet = len(arrays["b"])
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["time", "batch"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["time", "batch", alphabet])
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "characters", [ids], [logits], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def bits(path: Path, text: Text) -> float:
    """Return bits a character on the text held out, in stock onnxruntime; exits where a session of ours differs."""
    sessions = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]), load(path)
    feed = {"ids": np.ascontiguousarray(text.held_out[:, :-1].T)}
    stock, ours = (session.run(None, feed)[0] for session in sessions)
    if np.abs(stock - ours).max() > 1e-3:
        sys.exit(f"{path.name}: sessions differ by {np.abs(stock - ours).max():.1e}")
    goal = torch.from_numpy(np.ascontiguousarray(text.held_out[:, 1:].T)).flatten()
    loss = nn.functional.cross_entropy(torch.from_numpy(stock).flatten(0, 1), goal)
    return float(loss) / float(np.log(2))


@dataclass(frozen=True)
class Result:
    """Bits a character of the dense model, pruned in one shot, and trained meanwhile."""

    density: float
    pattern: str
    seed: int
    dense: float
    one_shot: float
    trained: float
    bytes: int

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        numbers = (f"{one:.3f}" for one in (self.dense, self.one_shot, self.trained))
        return (f"{self.density:.0%}", self.pattern, str(self.seed), *numbers, f"{self.bytes / 2**20:.2f}")


def measure(folder: Path, text: Text, sizes: Sizes, density: float, pattern: str, seed: int, dense: float) -> Result:
    """Make the dense model of a folder sparse, with training and without."""
    options = Options(density, parse_pattern(pattern))
    sparsify(str(folder / "dense.onnx"), str(folder / "shot.onnx"), options, None)
    tuning = Tuning(str(folder / "text.h5"), sizes.tuned, 2e-3, seed=seed, threads=torch.get_num_threads())
    sparsify(str(folder / "dense.onnx"), str(folder / "sparse.onnx"), options, None, tuning)
    found = [bits(folder / name, text) for name in ("shot.onnx", "sparse.onnx")]
    return Result(density, pattern, seed, dense, *found, (folder / "sparse.onnx").stat().st_size)


def run(seed: int, text: Text, sizes: Sizes, patterns: list[str]) -> list[Result]:
    """Train a dense model and measure what becomes of it."""
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(train_dense(text, sizes, seed), folder / "dense.onnx")
        with h5py.File(folder / "text.h5", "w") as file:
            for split, rows in (("train", text.train), ("val", text.held_out)):
                file[f"{split}/x"], file[f"{split}/y"] = rows[:, :-1], rows[:, 1:]
        dense = bits(folder / "dense.onnx", text)
        for density in BOUNDS:
            for pattern in patterns:
                results.append(measure(folder, text, sizes, density, pattern, seed, dense))
                print(*results[-1].cells(), file=sys.stderr, flush=True)
    return results


def bars(results: list[Result]) -> tuple[Bar, ...]:
    """Return what each density and pattern may cost, the mean over seeds."""
    groups: dict[tuple[float, str], list[float]] = {}
    for one in results:
        groups.setdefault((one.density, one.pattern), []).append(one.trained - one.dense)
    return tuple(
        Bar(f"bits lost at {density:.0%}, {pattern}", float(np.mean(lost)), BOUNDS[density], False)
        for (density, pattern), lost in groups.items()
    )


def main() -> None:
    """Measure all seeds and patterns."""
    made = parser(__doc__)
    made.add_argument("--seeds", type=int, default=3, help="number of seeds")
    made.add_argument("--patterns", nargs="*", default=["balanced:32", "unstructured"], help="patterns of non-zeros")
    options = made.parse_args()
    sizes = Sizes(32, 1, 1, 256) if options.quick else Sizes()
    text = read(sizes)
    results = [one for seed in range(options.seeds) for one in run(seed, text, sizes, options.patterns)]
    rows: tuple[dict[str, Any], ...] = tuple(asdict(one) for one in results)
    settings = {**asdict(sizes), "characters": int(text.train[:, 1:].size), "held_out": int(text.held_out[:, 1:].size)}
    cells = tuple(one.cells() for one in results)
    finish(Outcome("sparse_rnn_quality", settings, COLUMNS, cells, rows, bars(results)), options)


if __name__ == "__main__":
    main()
