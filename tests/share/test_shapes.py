"""Shape inference where the library's answer needs a correction."""

from __future__ import annotations

import numpy as np
from onnx import helper
from tests.kits import fuse_kit as kit


def test_numbers_are_no_names() -> None:
    """The two directions of a recurrent layer, joined, have a size and not the name "24"."""
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r"], ["y", "", ""], hidden_size=12, direction="bidirectional"),
        helper.make_node("Transpose", ["y"], ["t"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["t", "s"], ["z"]),
    ]
    made = kit.typed(
        kit.model(
            nodes,
            {"x": (np.float32, [4, "n", 8])},
            ["z"],
            {
                "w": np.zeros((2, 48, 8), np.float32),
                "r": np.zeros((2, 48, 12), np.float32),
                "s": np.array([0, 0, -1], np.int64),
            },
        )
    )
    assert [str(size) for size in made.graph.outputs[0].shape or ()] == ["4", "n", "24"]
    assert all(isinstance(size, int) or size.value == "n" for size in made.graph.outputs[0].shape or ())
