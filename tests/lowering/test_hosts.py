"""Host values: nothing is asked of the device, and nothing is copied to it but what the graph needs there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper
from tests.kits.lowering_kit import BOOL, FLOAT, INT64, lowered
from tests.lowering.conftest import NAMES
from torch.utils._python_dispatch import TorchDispatchMode

from sartor.share.artifact import read_model
from sartor.share.inputs import random_inputs
from sartor.share.lowering import Lowered, lower


class Copies(TorchDispatchMode):
    """Counts tensors that go from one device to another.

    On the `meta` device tensors have no elements: whatever reads one, or brings one to the host, raises an error.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        devices = {one.device.type for one in args if isinstance(one, torch.Tensor)}
        if isinstance(result, torch.Tensor) and devices and devices != {result.device.type}:
            self.count += devices == {"cpu"}
        return result


def copies(model: Lowered, **feeds: torch.Tensor) -> int:
    """Run a model on the `meta` device and return how many tensors were copied to it."""
    model.to("meta")
    with Copies() as seen, torch.no_grad():
        outputs = model(**feeds)
    assert outputs
    return seen.count


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return a tensor without elements."""
    return torch.empty(shape, dtype=dtype, device="meta")


@pytest.mark.parametrize("name", NAMES)
def test_models_ask_nothing_of_the_device(name: str, exported: Callable[[str], Path]) -> None:
    model = read_model(str(exported(name))).ir
    feeds = {key: torch.from_numpy(array).to("meta") for key, array in random_inputs(model, {}, [1]).items()}
    assert copies(lower(model), **feeds) == 0


def test_inputs_are_moved_once(exported: Callable[[str], Path]) -> None:
    """Every layer of the encoder reads the mask."""
    model = read_model(str(exported("encoder"))).ir
    feeds = {key: torch.from_numpy(array) for key, array in random_inputs(model, {}, [1]).items()}
    assert copies(lower(model), **feeds) == len(feeds) == 3


def test_shape_arithmetic_stays_on_the_host() -> None:
    """Reshape to half the rows: Shape, Gather, Div, Concat with a constant."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["rows"]),
        helper.make_node("Div", ["rows", "two"], ["half"]),
        helper.make_node("Concat", ["half", "rest"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["x", "wanted"], ["y"]),
    ]
    constants = {"first": np.array([0]), "two": np.array([2]), "rest": np.array([-1])}
    model = lowered(nodes, [("x", FLOAT, ["n", 3])], [("y", FLOAT, ["m", 6])], initializer=constants)
    assert model(x=torch.arange(12.0).reshape(4, 3))["y"].shape == (2, 6)
    assert copies(model, x=meta(4, 3)) == 0


def test_masks_are_made_on_the_device() -> None:
    """A mask from Range and a size is no host value, though its size is one."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], start=0, end=1),
        helper.make_node("Squeeze", ["shape"], ["size"]),
        helper.make_node("Range", ["zero", "size", "one"], ["places"]),
        helper.make_node("Less", ["places", "two"], ["mask"]),
        helper.make_node("Where", ["mask", "x", "nothing"], ["y"]),
    ]
    constants = {"zero": np.array(0), "one": np.array(1), "two": np.array(2), "nothing": np.array(0, np.float32)}
    model = lowered(nodes, [("x", FLOAT, ["n"])], [("y", FLOAT, ["n"])], initializer=constants)
    assert model(x=torch.ones(4))["y"].tolist() == [1, 1, 0, 0]
    assert copies(model, x=meta(4)) == 0


def test_a_constant_is_kept_on_both_sides_where_both_read_it() -> None:
    nodes = [helper.make_node("Reshape", ["x", "c"], ["r"]), helper.make_node("Add", ["r", "c"], ["y"])]
    types = [("x", INT64, [4])], [("y", INT64, [2, 2])]
    model = lowered(nodes, *types, initializer={"c": np.array([2, 2])})
    assert model(x=torch.arange(4))["y"].tolist() == [[2, 3], [4, 5]]
    assert copies(model, x=meta(4, dtype=torch.int64)) == 0


def test_a_condition_on_the_host_needs_no_device() -> None:
    """The condition is fed on the host; the branches work on the device."""
    bodies = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(operator, ["x"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, FLOAT, [2])],
        )
        for name, operator in (("then", "Neg"), ("else", "Abs"))
    }
    nodes = [helper.make_node("If", ["c"], ["y"], **bodies)]
    model = lowered(nodes, [("c", BOOL, []), ("x", FLOAT, [2])], [("y", FLOAT, [2])])
    assert model(c=torch.tensor(True), x=torch.tensor([1.0, 2.0]))["y"].tolist() == [-1, -2]
    assert copies(model, c=torch.tensor(False), x=meta(2)) == 0


def test_a_value_of_the_device_that_steers_is_brought_to_the_host() -> None:
    """What only the data tells has to be read: here on a device without data, which is an error."""
    nodes = [helper.make_node("NonZero", ["x"], ["places"]), helper.make_node("Reshape", ["x", "s"], ["y"])]
    model = lowered(nodes, [("x", FLOAT, [4]), ("s", INT64, [2])], [("y", FLOAT, None), ("places", INT64, None)])
    assert model(x=torch.ones(4), s=torch.tensor([2, 2]))["y"].shape == (2, 2)
    with pytest.raises(NotImplementedError):
        copies(model, x=meta(4), s=meta(2, dtype=torch.int64))
