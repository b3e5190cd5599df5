"""Functions made of nodes: equal bodies are equal bytes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import NodeProto, helper
from tests.kits import fuse_kit as kit

from sartor.tools.fuse.outline import Outline, outline

F = np.float32


def outlined(prefix: str, opset: int = 21, alpha: float = 0.5, shape: tuple[int, ...] = (0, 6)) -> Outline:
    """Outline Elu, Reshape and Add with names of their own."""
    names = {name: f"{prefix}_{name}" for name in "xzabc"}
    nodes = [
        helper.make_node("Elu", [names["x"]], [names["a"]], name=f"{prefix}_elu", alpha=alpha),
        helper.make_node("Reshape", [names["a"], f"{prefix}_shape"], [names["b"]]),
        helper.make_node("Add", [names["b"], names["z"]], [names["c"]], doc_string=prefix),
    ]
    inputs = {names["x"]: (F, ["n", 2, 3]), names["z"]: (F, [6])}
    model = kit.model(nodes, inputs, [names["c"]], {f"{prefix}_shape": np.array(shape)}, opset)
    made: Outline = kit.whole(model)[0]
    return made


def content(made: Outline) -> bytes:
    """Return the bytes of a function."""
    return bytes(ir.serde.serialize_function(made.function).SerializeToString(deterministic=True))


def test_names_make_no_difference() -> None:
    """The same nodes under other names are the same function, byte by byte."""
    first, second = outlined("first"), outlined("second")
    assert first.function.name == second.function.name
    assert content(first) == content(second)
    assert [value.name for value in first.inputs if value] == ["first_x", "first_z"]


def test_everything_else_does() -> None:
    """Attributes, constants and opsets are part of a function's name."""
    variants = [outlined("a"), outlined("a", alpha=0.25), outlined("a", shape=(-1, 6)), outlined("a", opset=19)]
    assert len({made.function.name for made in variants}) == len(variants)


def test_outputs_make_a_difference() -> None:
    """A body of which somebody needs more is another function."""
    node = [helper.make_node("Exp", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["b"])]
    names = {_names(node, outputs) for outputs in (("b",), ("a", "b"))}
    assert len(names) == 2


def _names(nodes: list[NodeProto], outputs: tuple[str, ...]) -> str:
    made: Outline = kit.whole(kit.model(nodes, {"x": (F, [3])}, outputs))[0]
    return str(made.function.name)


def test_weights_are_inputs_and_parameters_constants() -> None:
    """A weight stays outside; a number and a rule's parameter come along, once."""
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["a"]),
        helper.make_node("Add", ["a", "one"], ["b"]),
        helper.make_node("Div", ["b", "one"], ["c"]),
        helper.make_node("Transpose", ["c"], ["d"], perm=[1, 0]),
        helper.make_node("Squeeze", ["d", "axes"], ["y"]),
    ]
    weights = {"w": np.ones((4, 1), F), "one": np.array(1.0, F), "axes": np.array([0])}
    made = kit.whole(kit.model(nodes, {"x": (F, [4, 1])}, ["y"], weights))[0]
    assert [value.name for value in made.inputs] == ["x", "w"]
    assert [node.op_type for node in made.function].count("Constant") == 2


def test_shapes_of_the_graph_do_not_come_along() -> None:
    """A computed target whose sizes inference knows is spelled as a constant, so that the shape chain can go."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Exp", ["x"], ["a"]),
        helper.make_node("Reshape", ["a", "s"], ["y"]),
    ]
    model = kit.typed(kit.model(nodes, {"x": (F, ["n", 4])}, ["y"]))
    made = outline([node for node in model.graph if node.op_type != "Shape"], 21)
    assert [value.name for value in made.inputs if value] == ["x"]
