"""Coded matrices are what was coded, in numpy and in onnxruntime, and take as few bytes as they should."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sartor.tools.sparse_rnn.encode import FARTHEST, decode, decoder, encode
from sartor.tools.sparse_rnn.pattern import Pattern, masks


def drawn(shape: tuple[int, ...], density: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw a matrix and what stays of it."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape).astype(np.float32), rng.random(shape) < density


@given(st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 70)), st.floats(0, 1), st.integers(0, 99))
def test_decoding_gives_what_was_kept(shape: tuple[int, ...], density: float, seed: int) -> None:
    matrix, mask = drawn(shape, density, seed)
    assert np.array_equal(decode(encode(matrix, mask, np.float32)), np.where(mask, matrix, 0))
    halves = np.where(mask, matrix, 0).astype(np.float16).astype(np.float32)
    assert np.array_equal(decode(encode(matrix, mask)), halves)


@pytest.mark.parametrize("gap", [1, 254, 255, 256, 510, 511, 1000])
def test_gaps_longer_than_a_byte_are_filled(gap: int) -> None:
    matrix, mask = np.ones((1, 3000), np.float32), np.zeros((1, 3000), bool)
    mask[0, [gap - 1, 2 * gap - 1]] = True
    coded = encode(matrix, mask)
    assert len(coded.gaps) == 2 * -(-gap // FARTHEST)
    assert np.array_equal(np.flatnonzero(decode(coded)), [gap - 1, 2 * gap - 1])


@pytest.mark.parametrize("shape", [(1, 8, 2), (2, 48, 16), (1, 4096, 70)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_onnxruntime_decodes_it(shape: tuple[int, ...], dtype: type) -> None:
    coded = encode(*drawn(shape, 0.1), dtype)
    gaps, values = (
        ir.Value(name=name, const_value=ir.tensor(array, name=name))
        for name, array in (("gaps", coded.gaps), ("values", coded.values))
    )
    nodes, result = decoder(gaps, values, coded.shape)
    result.type, result.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
    graph = ir.Graph([], [result], nodes=nodes, initializers=[gaps, values], opset_imports={"": 20}, name="decoder")
    proto = ir.serde.serialize_model(ir.Model(graph, ir_version=10))
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(None, {})[0], decode(coded))


@pytest.mark.parametrize(("density", "smaller"), [(0.3, 4.4), (0.1, 13)])
def test_bytes_of_balanced_matrices(density: float, smaller: float) -> None:
    matrix, _ = drawn((2048, 512), 1.0)
    (mask,) = masks([matrix], 4, Pattern("balanced", (32,)), density, "gate")
    assert matrix.nbytes / encode(matrix, mask).bytes > smaller * 0.95
