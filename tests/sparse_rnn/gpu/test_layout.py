"""Packed layers: every weight once and where it belongs, and what makes layouts free of conflicts."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from tests.kits import sparse_rnn_gpu_kit as kit

from sartor.tools.sparse_rnn.encode import decode
from sartor.tools.sparse_rnn.gpu.layout import Packed, bits_of, depth_for, most_threads
from sartor.tools.sparse_rnn.gpu.limits import Gpu, Settings
from sartor.tools.sparse_rnn.gpu.plan import plan
from sartor.tools.sparse_rnn.kernels.form import form_of


def rebuilt(packed: Packed, layer: kit.Layer, directions: tuple[int, ...]) -> np.ndarray:
    """Return R of some directions from what the threads of a launch hold; every weight must come once."""
    shape = packed.shape
    gates = sum(map(len, form_of(layer.cell).parts))
    found = np.zeros((len(directions), gates, shape.hidden, shape.hidden))
    seen = np.zeros(found.shape, int)
    dtype = np.float16 if shape.values == "fp16" else ml_dtypes.bfloat16
    for program in range(shape.directions * shape.programs):
        direction, own = divmod(program, shape.programs)
        before = 0
        for part, parts in zip(shape.parts, form_of(layer.cell).parts, strict=True):
            size = part.depth * shape.threads
            words = packed.weights[program, before : before + size]
            before += size
            whole = part.depth // shape.vector * shape.vector * shape.threads
            vectors = words[:whole].reshape(-1, shape.threads, shape.vector).transpose(1, 0, 2)
            rest = words[whole:].reshape(-1, shape.threads).T
            held = np.concatenate([vectors.reshape(shape.threads, -1), rest], 1).view(np.uint32)
            values = (held >> 16).astype(np.uint16).view(dtype).astype(float)
            for gate, slot in parts:
                for unit in range(shape.first_unit(own + 1) - shape.first_unit(own)):
                    begin, count = packed.begins[program, slot, unit], packed.threads[program, slot, unit]
                    row = packed.places[program, unit]
                    mine = held[begin : begin + count] & 0xFFFF
                    used = values[begin : begin + count] != 0
                    columns = packed.units[mine[used]]
                    np.add.at(found, (direction, gate, row, columns), values[begin : begin + count][used])
                    np.add.at(seen, (direction, gate, row, columns), 1)
                    assert (mine[~used] >= shape.zero).all()
    assert seen.max() <= 1
    return found.reshape(len(directions), -1, shape.hidden)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(
    ("pattern", "hidden", "batch", "order"),
    [
        ("unstructured", 63, 4, "greedy"),
        ("row", 100, 16, "greedy"),
        ("balanced:32", 256, 8, "constructive"),
        ("balanced:32", 512, 4, "constructive"),
        ("balanced:16", 512, 1, "constructive"),
        ("balanced:32", 320, 4, "greedy"),
        ("block:16x1", 64, 2, "greedy"),
    ],
)
def test_every_weight_is_held_once(kind: str, pattern: str, hidden: int, batch: int, order: str) -> None:
    layer = kit.layer_of(kit.cell_of(kind, "bidirectional"), hidden, 3, 0.2, pattern)
    launches = plan(kit.source(layer), Settings(batch, "fp16"), Gpu(90, 12, 232_448))
    assert [launch.directions for launch in launches] == [(0, 1)]
    (launch,) = launches
    np.testing.assert_array_equal(rebuilt(launch.packed, layer, (0, 1)), decode(layer.r))
    assert launch.packed.order == order
    if order == "constructive":
        assert launch.packed.reads.factor == 1


@pytest.mark.parametrize("narrow", [False, True])
def test_the_ablation_packs_the_same_weights(narrow: bool) -> None:
    layer = kit.layer_of(kit.cell_of("LSTM"), 96, 3, 0.2, "balanced:32")
    settings = Settings(8, "bf16", wide=not narrow)
    (launch,) = plan(kit.source(layer), settings, Gpu(90, 5, 232_448), order="sorted")
    wanted = decode(layer.r).astype(ml_dtypes.bfloat16).astype(float)
    np.testing.assert_array_equal(rebuilt(launch.packed, layer, (0,)), wanted)
    assert (launch.packed.order, launch.packed.shape.vector) == ("sorted", 1 if narrow else 4)


def test_depth_is_the_least_that_finds_threads() -> None:
    counts = np.array([[10, 10, 1], [7, 7, 7]])
    assert depth_for(counts, 3) == 10
    assert depth_for(counts, 6) == 5
    assert depth_for(counts, 2) is None
    assert most_threads(counts, 5) == 2
    # A row does not share more than 32 threads.
    assert depth_for(np.array([[640]]), 512) == 20


def test_values_are_rounded_to_nearest() -> None:
    values = np.array([1.0, -0.1, 65519.0, 3.0e-8])
    np.testing.assert_array_equal(bits_of(values, "fp16").view(np.float16), values.astype(np.float16))
    assert (bits_of(np.array([1.0, 1 + 2**-8 + 2**-12]), "bf16") == [0x3F80, 0x3F81]).all()
