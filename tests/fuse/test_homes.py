"""What a kernel keeps shares memory where it can, and nowhere else."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto as T
from onnx import helper
from tests.kits import fuse_kit as kit

from sartor.tools.fuse.homes import homes
from sartor.tools.fuse.lower import lower
from sartor.tools.fuse.schedule import Schedule, schedule

F = np.float32


def chain(*operators: str, outputs: tuple[str, ...] = (), cast: bool = False) -> onnx.ModelProto:
    """Make a model that applies operators to rows one after the other; results are named t0, t1, ..."""
    nodes, name = [], "x"
    for i, operator in enumerate(operators):
        nodes.append(helper.make_node(operator, [name, *(["g"] * (operator == "LayerNormalization"))], [f"t{i}"]))
        name = f"t{i}"
    if cast:
        nodes.append(helper.make_node("Cast", [name], ["c"], to=T.FLOAT16))
        name = "c"
    inputs = {"x": (F, ["n", 384]), "g": (F, [384])}
    if "LayerNormalization" not in operators:
        del inputs["g"]
    return kit.model(nodes, inputs, [*outputs, name])


def planned(model: onnx.ModelProto) -> Schedule:
    """Schedule the only part of a model."""
    call = kit.whole(model)[1]
    return schedule(lower(call.function, call.inputs))


def agree(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> None:
    """Check the kernel of a whole model against onnxruntime."""
    outlined, call = kit.whole(model)
    ours = kit.call(kit.compiled(call), [feed[value.name] for value in outlined.inputs])
    session = onnxruntime.InferenceSession(model.SerializeToString())
    wanted = [value.name for value in outlined.outputs]
    for mine, theirs in zip(ours, session.run(wanted, feed), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_the_powers_of_a_softmax_live_in_its_output() -> None:
    (home,) = homes(planned(chain("Softmax"))).values()
    assert home.output == 0


def test_an_output_of_another_type_holds_nothing() -> None:
    found = homes(planned(chain("Softmax", cast=True)))
    assert [(root, home.output) for root, home in found.items()] == [(next(iter(found)), None)]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_rows_one_after_the_other_share_memory(count: int) -> None:
    """Of many softmaxes in a row no more than two rows are alive at a time, one of them in the output."""
    plan = planned(chain(*["Softmax"] * count))
    found = homes(plan)
    assert len(found) >= count
    own = {home for home in found.values() if home.output is None}
    assert len(own) <= 2
    assert any(home.output == 0 for home in found.values())


def test_lives_do_not_meet() -> None:
    """A row that is still read keeps its memory: the first softmax is an operand of the last sum.

    The output is of another type, so that the row lives in no output.
    """
    nodes = [
        helper.make_node("Softmax", ["x"], ["a"]),
        helper.make_node("Softmax", ["a"], ["b"]),
        helper.make_node("Softmax", ["b"], ["c"]),
        helper.make_node("Add", ["a", "c"], ["s"]),
        helper.make_node("Cast", ["s"], ["y"], to=T.DOUBLE),
    ]
    x = np.random.default_rng(0).standard_normal((7, 384)).astype(F)
    agree(kit.model(nodes, {"x": (F, ["n", 384])}, ["y"]), {"x": x})


@pytest.mark.parametrize("outputs", [(), ("t0",), ("t1",), ("t0", "t2")])
def test_chains_agree_with_onnxruntime(outputs: tuple[str, ...]) -> None:
    """Whatever of a chain is an output, the numbers are right."""
    operators = ("LayerNormalization", "Softmax", "Gelu", "Softmax", "Tanh", "LayerNormalization")
    rng = np.random.default_rng(0)
    feed = {"x": rng.standard_normal((5, 384)).astype(F), "g": rng.standard_normal(384).astype(F)}
    agree(chain(*operators, outputs=outputs), feed)


def test_an_output_holds_one_row() -> None:
    """Two rows that one sum needs do not both live in its result."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["a"]),
        helper.make_node("Softmax", ["z"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    model = kit.model(nodes, {"x": (F, ["n", 384]), "z": (F, ["n", 384])}, ["y"])
    assert sorted(home.output is None for home in homes(planned(model)).values()) == [False, True]
    rng = np.random.default_rng(0)
    agree(model, {name: rng.standard_normal((5, 384)).astype(F) for name in "xz"})
