"""Functions and their overrides, names, lifetimes, the way out to onnxruntime, and refusals."""

from __future__ import annotations

import copy
import gc
import warnings
import weakref
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper
from tests.kits.lowering_kit import FLOAT, INT64, lowered, make_model

from sartor.share.errors import InputRefusedError, UsageError
from sartor.share.lowering import FallbackWarning, lower, write_back
from sartor.share.lowering.dtypes import TORCH, from_numpy, to_numpy

DOMAIN = "sartor.test"
IO = [("x", FLOAT, ["n"])], [("y", FLOAT, ["n"])]


def with_functions() -> ir.Model:
    """Return a model that calls `double` twice, once out of another function: y = 4 x + 1."""
    imports = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)]
    double = helper.make_function(DOMAIN, "double", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], imports)
    outer = helper.make_function(
        DOMAIN, "outer", ["a"], ["c"],
        [
            helper.make_node("double", ["a"], ["b"], domain=DOMAIN),
            helper.make_node("Constant", [], ["one"], value_float=1.0),
            helper.make_node("Add", ["b", "one"], ["c"]),
        ],
        imports,
    )  # fmt: skip
    nodes = [
        helper.make_node("double", ["x"], ["d"], domain=DOMAIN),
        helper.make_node("outer", ["d"], ["y"], domain=DOMAIN),
    ]
    return make_model(nodes, *IO, functions=[double, outer], opset_imports=imports)


def test_functions_run_their_bodies() -> None:
    assert lower(with_functions())(x=torch.tensor([1.0, 2.0]))["y"].tolist() == [5, 9]


def test_an_override_replaces_every_call() -> None:
    """Calls within other functions too; it is told the node and the function, and gets tensors."""
    met = []

    def triple(node: ir.Node, function: ir.Function) -> Any:
        met.append((node.op_type, function.name, len(node.inputs)))
        return lambda a: 3 * a

    model = lower(with_functions(), {(DOMAIN, "double"): triple})
    assert model(x=torch.tensor([1.0, 2.0]))["y"].tolist() == [10, 19]
    assert met == [("double", "double", 1)] * 2


def test_a_declined_call_runs_the_body() -> None:
    taken: list[ir.Node] = []

    def first_only(node: ir.Node, function: ir.Function) -> Any:
        taken.append(node)
        return (lambda a: (3 * a,)) if len(taken) == 1 else None

    model = with_functions()
    assert lower(model, {(DOMAIN, "double"): first_only})(x=torch.tensor([1.0]))["y"].tolist() == [7]
    assert [function.overload for function in model.functions.values()] == ["", ""]


def test_a_declined_body_may_hold_calls_that_are_overridden() -> None:
    overrides: Any = {
        (DOMAIN, "outer"): lambda node, function: None,
        (DOMAIN, "double"): lambda node, function: lambda a: 3 * a,
    }
    assert lower(with_functions(), overrides)(x=torch.tensor([1.0]))["y"].tolist() == [10]


def test_names_that_torch_does_not_allow() -> None:
    names = ["a.b", "a%2Eb", "forward", "keys", "_parameters", "=", "a/b"]
    nodes = [helper.make_node("Sum", ["x", *names], ["y"])]
    constants = {name: np.array([2.0**i], np.float32) for i, name in enumerate(names)}
    model = lowered(nodes, *IO, initializer=constants)
    assert list(model.tensors()) == names
    assert model(x=torch.zeros(1))["y"].item() == 2 ** len(names) - 1
    fresh = lowered(nodes, *IO, initializer={name: np.zeros(1, np.float32) for name in names})
    fresh.load_state_dict(model.state_dict())
    assert fresh(x=torch.zeros(1))["y"].item() == 2 ** len(names) - 1


def test_a_copy_has_weights_of_its_own() -> None:
    model = lowered([helper.make_node("Mul", ["x", "c"], ["y"])], *IO, initializer={"c": np.ones(1, np.float32)})
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.tensors()["c"].mul_(5)
    assert [one(x=torch.ones(1))["y"].item() for one in (model, twin)] == [1, 5]


def test_integers_are_buffers_and_an_initialiser_may_be_fed() -> None:
    nodes = [helper.make_node("Gather", ["x", "places"], ["y"])]
    inputs = [("x", FLOAT, ["n"]), ("places", INT64, [1])]
    model = lowered(nodes, inputs, [("y", FLOAT, [1])], initializer={"places": np.array([-1])})
    assert [name for name, _ in model.named_buffers()] == ["initializers.=places"]
    x = torch.arange(3.0)
    assert model(x=x)["y"].item() == 2
    assert model(x=x, places=torch.tensor([1]))["y"].item() == 1


def test_inputs_are_checked_by_name() -> None:
    model = lower(with_functions())
    with pytest.raises(UsageError, match=r"^z: no input of the model"):
        model(x=torch.zeros(1), z=torch.zeros(1))
    with pytest.raises(UsageError, match=r"^x: missing in the model"):
        model()


def test_only_known_tensors_of_the_same_shape_are_written_back() -> None:
    model = make_model([helper.make_node("Add", ["x", "c"], ["y"])], *IO, initializer={"c": np.ones(1, np.float32)})
    with pytest.raises(UsageError, match=r"^d: no initialiser of the model"):
        write_back(model, {"d": torch.zeros(1)})
    with pytest.raises(UsageError, match=r"^c: has the shape \[2\] instead of \[1\]"):
        write_back(model, {"c": torch.zeros(2)})
    write_back(model, {"c": torch.full((1,), 0.5, dtype=torch.float64)})
    assert lower(model).tensors()["c"].tolist() == [0.5]


def test_initialisers_of_nested_graphs_have_names_of_their_own() -> None:
    """Both branches call their constant `c`."""
    branches = {}
    for branch, number in (("then", 2.0), ("else", 3.0)):
        add = helper.make_node("Add", ["x", "c"], ["z"])
        constant = helper.make_tensor("c", FLOAT, [1], [number])
        result = helper.make_tensor_value_info("z", FLOAT, [1])
        branches[f"{branch}_branch"] = helper.make_graph([add], branch, [], [result], [constant])
    inputs = [("flag", TensorProto.BOOL, []), ("x", FLOAT, [1])]
    model = make_model([helper.make_node("If", ["flag"], ["y"], **branches)], inputs, [("y", FLOAT, [1])])
    module = lower(model)
    before = {name: tensor.item() for name, tensor in module.tensors().items()}
    assert sorted(before.values()) == [2, 3]
    assert set(before) == {"c", "c#2"}
    write_back(model, {name: 10 * tensor for name, tensor in module.tensors().items()})
    after = {flag: lower(model)(flag=torch.tensor(flag), x=torch.zeros(1))["y"].item() for flag in (True, False)}
    assert after == {True: 20, False: 30}


def test_the_standard_has_two_names() -> None:
    """With opset 11 under its long name, Squeeze takes its axes from an attribute."""
    imports = [helper.make_opsetid("ai.onnx", 11)]
    node = helper.make_node("Squeeze", ["x"], ["y"], domain="ai.onnx", axes=[0])
    model = lowered([node], [("x", FLOAT, [1, 2])], [("y", FLOAT, [2])], opset_imports=imports)
    assert model(x=torch.zeros(1, 2))["y"].shape == (2,)
    softmax = helper.make_node("Softmax", ["x"], ["y"], domain="ai.onnx")
    model = lowered([softmax], [("x", FLOAT, [1, 2, 2])], [("y", FLOAT, [1, 2, 2])], opset_imports=imports)
    assert model(x=torch.zeros(1, 2, 2))["y"].unique().tolist() == [0.25]


def test_values_go_after_their_last_use() -> None:
    """While the last of three nodes runs, the result of the first one is gone."""
    alive: list[Any] = []

    def spy(node: ir.Node, function: ir.Function) -> Any:
        def run(a: torch.Tensor) -> torch.Tensor:
            gc.collect()
            alive.append([reference() is not None for reference in seen])
            result = a + 1
            seen.append(weakref.ref(result))
            return result

        return run

    seen: list[Any] = []
    imports = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)]
    body = helper.make_function(DOMAIN, "spy", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], imports)
    names = ["x", "p", "q", "y"]
    nodes = [helper.make_node("spy", [names[i]], [names[i + 1]], domain=DOMAIN) for i in range(3)]
    model = lower(make_model(nodes, *IO, functions=[body], opset_imports=imports), {(DOMAIN, "spy"): spy})
    assert model(x=torch.zeros(1))["y"].item() == 3
    assert alive == [[], [True], [False, True]]


def test_an_operator_without_a_rule_runs_in_onnxruntime_with_one_warning() -> None:
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node("BiasGelu", ["a", "b"], ["y"], domain="com.microsoft"),
    ]
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = lowered(nodes, *IO, initializer={"b": np.ones(2, np.float32)}, opset_imports=imports)
    x = torch.tensor([-1.0, 2.0])
    with pytest.warns(FallbackWarning, match=r"^BiasGelu runs in onnxruntime on the CPU and passes no gradients$"):
        first = model(x=x)["y"]
    torch.testing.assert_close(first, torch.nn.functional.gelu(x.abs() + 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(model(x=x)["y"], first)


def test_an_attribute_that_torch_lacks_runs_in_onnxruntime() -> None:
    nodes = [helper.make_node("GridSample", ["x", "g"], ["y"], mode="cubic")]
    types = [("x", FLOAT, [1, 1, 2, 3, 4]), ("g", FLOAT, [1, 1, 1, 1, 3])], [("y", FLOAT, None)]
    model = lowered(nodes, *types)
    feed = {"x": torch.arange(24.0).reshape(1, 1, 2, 3, 4), "g": torch.zeros(1, 1, 1, 1, 3)}
    with pytest.raises(InputRefusedError, match=r"^GridSample: neither torch \(bicubic in 3 dimensions\) nor onnxrun"):
        model(**feed)


def test_strings_pass_through() -> None:
    nodes = [helper.make_node("StringConcat", ["a", "b"], ["y"])]
    text = TensorProto.STRING
    model = lowered(nodes, [("a", text, [1]), ("b", text, [1])], [("y", text, [1])])
    with pytest.warns(FallbackWarning):
        result = model(a=np.array(["up"], object), b=np.array(["side"], object))["y"]
    assert result.tolist() == ["upside"]


def test_an_operator_that_nobody_has_is_refused() -> None:
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("no.body", 1)]
    model = lowered([helper.make_node("Nothing", ["x"], ["y"], domain="no.body")], *IO, opset_imports=imports)
    reason = r"^no.body:Nothing: neither torch \(there is no rule for it\) nor onnxruntime \(.*\) runs the operator"
    with pytest.raises(InputRefusedError, match=reason):
        model(x=torch.zeros(1))


@pytest.mark.parametrize("dtype", list(TORCH), ids=lambda dtype: dtype.name)
def test_every_type_goes_to_torch_and_back(dtype: ir.DataType) -> None:
    array = np.array([0, 1, 1, 0]).astype(dtype.numpy())
    tensor = from_numpy(array)
    assert tensor.dtype is TORCH[dtype]
    back = to_numpy(tensor, dtype)
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()
