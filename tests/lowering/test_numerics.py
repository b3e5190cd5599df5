"""Operators over many attributes, against stock onnxruntime: what the node tests do not reach."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import helper
from tests.kits.lowering_kit import FLOAT, LoweredSession, lowered

from sartor.share.lowering import FallbackWarning
from sartor.share.runtime import stock_options

Arrays = list[np.ndarray | None]


def numbers(*shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Return normal numbers, or small integers of both signs without 0."""
    random = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return random.standard_normal(shape).astype(dtype)
    low = -9 if np.dtype(dtype).kind == "i" else 1
    drawn = random.integers(low, 10, shape)
    return np.where(drawn == 0, 3, drawn).astype(dtype)


def check(operator: str, inputs: Arrays, outputs: int = 1, opset: int = 21, **attributes: Any) -> None:
    """Run one node here and in onnxruntime; raises AssertionError where they differ or torch can't."""
    names = [f"i{index}" if array is not None else "" for index, array in enumerate(inputs)]
    given = {name: array for name, array in zip(names, inputs, strict=True) if array is not None}
    results = [f"o{index}" for index in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(operator, names, results, **attributes)],
        "graph",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in given.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in results],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", opset)])
    session = onnxruntime.InferenceSession(model.SerializeToString(), stock_options(1))
    expected = session.run(None, given)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        actual = LoweredSession(ir.serde.deserialize_model(model)).run(None, given)
    for ours, theirs in zip(actual, expected, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)


def grid(**choices: list[Any]) -> list[dict[str, Any]]:
    """Return every combination of attributes; None leaves one out."""
    rows = itertools.product(*choices.values())
    return [{name: one for name, one in zip(choices, row, strict=True) if one is not None} for row in rows]


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "uint32", "uint64"])
def test_integer_arithmetic(dtype: str) -> None:
    a, b = numbers(3, 5, dtype=dtype), numbers(5, dtype=dtype, seed=1)
    for operator in ("Add", "Sub", "Mul", "Div", "Mod"):
        if dtype in ("int8", "uint8") or operator != "Sub" or dtype[0] != "u":
            check(operator, [a, b])
    check("Mod", [a, b], fmod=1)
    for operator in ("Less", "Greater", "Equal", "GreaterOrEqual"):
        check(operator, [a.astype("int32"), b.astype("int32")])


def test_unsigned_numbers_beyond_the_signed_ones() -> None:
    a = np.array([2**64 - 1, 2**63, 2**63 + 5, 7, 0, 2**64 - 3], np.uint64)
    b = np.array([3, 2**63 - 1, 2**63 + 6, 2**63, 1, 2**64 - 3], np.uint64)
    for operator in ("Add", "Sub", "Mul", "Div", "Mod", "Less", "Greater", "Max", "Min"):
        check(operator, [a, b])
    for direction in ("LEFT", "RIGHT"):
        check("BitShift", [a, np.array([0, 1, 63, 2, 5, 32], np.uint64)], direction=direction)
    check("Sign", [a])


def test_not_a_number() -> None:
    x = np.array([np.nan, -np.inf, np.inf, -0.5, 0.5, 1.5, 2.5, 3.0], np.float32)
    one, minus = np.array(1, np.float32), np.array(-1, np.float32)
    for operator in ("Relu", "Round", "Sign", "IsNaN", "IsInf", "Floor", "Abs", "Softplus", "Selu", "HardSigmoid"):
        check(operator, [x])
    check("Clip", [x, minus, one])
    check("Clip", [x, one, minus])
    check("Clip", [x], opset=6, min=-1.0, max=1.0)
    for operator in ("Max", "Min", "Pow", "Mod"):
        check(operator, [x, np.flip(x)], **({"fmod": 1} if operator == "Mod" else {}))


def test_power_of_two_types() -> None:
    base = numbers(7, dtype="int32")
    check("Pow", [base, np.full(7, 2.0, np.float32)])
    check("Pow", [base.astype("float32"), np.full(7, 3, np.int64)])


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax", "Hardmax"])
def test_softmax_before_and_since_opset_13(operator: str, opset: int) -> None:
    for axis in (None, 0, 1, -1):
        check(operator, [numbers(2, 3, 4)], opset=opset, **({} if axis is None else {"axis": axis}))


@pytest.mark.parametrize("operator", ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp"])
def test_reductions_of_both_spellings(operator: str) -> None:
    x = numbers(2, 3, 4)
    for keep in (0, 1):
        check(f"Reduce{operator}", [x, np.array([0, -1])], keepdims=keep)
        check(f"Reduce{operator}", [x], keepdims=keep)
        check(f"Reduce{operator}", [x], opset=11, keepdims=keep, axes=[1])
    check(f"Reduce{operator}", [np.abs(x), np.array([], np.int64)], noop_with_empty_axes=1)
    if operator in ("Sum", "Max", "Min", "Mean", "Prod"):
        check(f"Reduce{operator}", [numbers(2, 3, dtype="int32"), np.array([1])])


def test_slices() -> None:
    x = numbers(5, 6)
    for start, end, step in [(1, 9, 2), (-1, -9, -2), (4, 1, -1), (-2, 2**62, 1), (3, 3, 1), (9, -(2**62), -1)]:
        check("Slice", [x, np.array([start]), np.array([end]), np.array([-1]), np.array([step])])
    check("Slice", [x, np.array([1, 0]), np.array([-1, 4])])
    check("Slice", [x], opset=9, starts=[1], ends=[-1], axes=[1])


def test_movement_of_earlier_opsets() -> None:
    x = numbers(1, 4, 1, 6)
    check("Squeeze", [x], opset=11, axes=[0, -2])
    check("Unsqueeze", [x], opset=11, axes=[0, -1])
    check("Unsqueeze", [x, np.array([-1, 1])])
    check("Split", [x], outputs=2, opset=11, axis=3, split=[2, 4])
    check("Split", [x], outputs=3, opset=18, axis=1, num_outputs=3)
    check("Reshape", [x, np.array([0, -1, 3])])
    check("Flatten", [x], axis=-1)
    check("Tile", [x, np.array([2, 1, 1, 2])])
    check("Expand", [x, np.array([5, 1])])


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_padding(mode: str) -> None:
    check("Pad", [numbers(3, 4), np.array([1, 2, 0, 3])], mode=mode)
    check("Pad", [numbers(3, 4), np.array([2, 1]), None, np.array([-1])], mode=mode)
    if mode == "constant":
        check("Pad", [numbers(3, 4), np.array([0, -1, 2, -1]), np.array(7, np.float32)])
        check("Pad", [numbers(3, 4, dtype="int64"), np.array([0, 1, 2, 0]), np.array(7)])
        check("Pad", [numbers(3, 4)], opset=2, pads=[0, 1, 0, 1], value=2.0)


def test_indices_from_the_end() -> None:
    x, index = numbers(4, 5), np.array([[-1, 0], [2, -4]])
    check("Gather", [x, index], axis=1)
    check("GatherElements", [x, index], axis=0)
    check("GatherND", [x, np.array([[-1, 2], [0, -5]])])
    check("ScatterElements", [x, index, numbers(2, 2, seed=3)], axis=0)
    check("ScatterND", [x, np.array([[-1], [1]]), numbers(2, 5, seed=3)])
    check("OneHot", [index, np.array(6), np.array([-1.0, 2.0], np.float32)], axis=0)
    for reduction in ("add", "mul", "max", "min"):
        places = np.array([[1, 1, 1, 0, 0]])
        check("ScatterElements", [x, places, numbers(1, 5, seed=3)], axis=0, reduction=reduction)
        check("ScatterND", [x, np.array([[1], [1]]), numbers(2, 5, seed=3)], reduction=reduction)


def test_equal_elements_in_order() -> None:
    x = np.array([[3, 1, 3, 2, 1, 3]], np.float32)
    for largest in (0, 1):
        check("TopK", [x, np.array([4])], outputs=2, largest=largest)
    for last in (0, 1):
        check("ArgMax", [x], axis=1, select_last_index=last)
        check("ArgMin", [x], axis=1, select_last_index=last, keepdims=0)
    check("Unique", [x], outputs=4, sorted=0)
    check("NonZero", [x - 3])


def test_running_sums() -> None:
    for options in grid(exclusive=[0, 1], reverse=[0, 1]):
        check("CumSum", [numbers(3, 4), np.array(-1)], **options)
        check("CumSum", [numbers(3, 4, dtype="int32"), np.array([0])], **options)


# onnxruntime pads "SAME" as if windows were not dilated, against the standard: that is left out.
POOLS = grid(
    strides=[None, [2, 2]],
    auto_pad=[None, "SAME_UPPER", "SAME_LOWER", "VALID"],
    ceil_mode=[0, 1],
    dilations=[None, [2, 1]],
)


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("options", POOLS, ids=str)
def test_pooling(options: dict[str, Any], size: int) -> None:
    x = numbers(2, 3, size, size + 1)
    if options.get("auto_pad", "VALID") == "VALID" or not (options["ceil_mode"] or "dilations" in options):
        check("MaxPool", [x], outputs=2, kernel_shape=[3, 2], **options)
        for include in (0, 1):
            check("AveragePool", [x], kernel_shape=[3, 2], count_include_pad=include, **options)
        check("LpPool", [x], kernel_shape=[3, 2], **options)


@pytest.mark.parametrize("options", grid(pads=[[1, 0, 1, 1], [1, 1, 1, 1]], ceil_mode=[0, 1], strides=[[2, 2], [3, 1]]))
def test_pooling_with_pads(options: dict[str, Any]) -> None:
    x = numbers(1, 2, 8, 7)
    check("MaxPool", [x], outputs=2, kernel_shape=[3, 3], **options)
    for include in (0, 1):
        check("AveragePool", [x], kernel_shape=[3, 3], count_include_pad=include, **options)
    check("MaxPool", [numbers(1, 2, 8, 7, dtype="uint8")], kernel_shape=[3, 3], **options)


CONVOLUTIONS = grid(
    strides=[None, [2, 1]],
    dilations=[None, [1, 2]],
    auto_pad=[None, "SAME_UPPER", "SAME_LOWER"],
    pads=[None, [1, 0, 2, 1]],
)


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_convolutions(options: dict[str, Any]) -> None:
    if "auto_pad" in options and "pads" in options:
        return
    x, bias = numbers(2, 4, 7, 8), numbers(6)
    if not ("auto_pad" in options and "dilations" in options):
        check("Conv", [x, numbers(6, 2, 3, 3, seed=1), bias], group=2, **options)
    check("ConvTranspose", [x, numbers(4, 3, 3, 3, seed=1), bias], group=2, **options)


def test_transposed_convolutions_of_a_wanted_size() -> None:
    x, weight, bias = numbers(1, 2, 5, 5), numbers(2, 3, 3, 3), numbers(3)
    check("ConvTranspose", [x, weight, bias], strides=[2, 2], output_padding=[1, 0])
    for mode in ("NOTSET", "SAME_UPPER", "SAME_LOWER"):
        check("ConvTranspose", [x, weight, bias], strides=[2, 2], output_shape=[10, 10], auto_pad=mode)
    check("ConvTranspose", [numbers(1, 2, 5), numbers(2, 3, 3), bias], strides=[3], output_padding=[2])


COORDINATES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize(mode: str, coordinates: str) -> None:
    x, options = numbers(1, 2, 5, 6), {"mode": mode, "coordinate_transformation_mode": coordinates}
    for scales in ([1, 1, 2, 3], [1, 1, 0.6, 0.5], [1, 1, 1.7, 2.3]):
        check("Resize", [x, None, np.array(scales, np.float32)], **options)
    for sizes in ([1, 2, 9, 4], [1, 2, 10, 12], [1, 2, 3, 3]):
        check("Resize", [x, None, None, np.array(sizes)], **options)
    check("Resize", [x, None, None, np.array([1, 2, 1, 1])], **options)


@pytest.mark.parametrize("nearest", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_nearest_neighbours(nearest: str) -> None:
    options = {"nearest_mode": nearest, "coordinate_transformation_mode": "asymmetric"}
    for scales in ([1, 1, 2, 2], [1, 1, 0.5, 0.7], [1, 1, 1.5, 4]):
        check("Resize", [numbers(1, 2, 5, 6), None, np.array(scales, np.float32)], **options)


def test_resize_of_earlier_opsets() -> None:
    scales = np.array([1, 1, 2, 1.5], np.float32)
    for mode in ("nearest", "linear"):
        check("Upsample", [numbers(1, 2, 4, 4), scales], opset=9, mode=mode)
        check("Resize", [numbers(1, 2, 4, 4), scales], opset=10, mode=mode)
        check("Resize", [numbers(4, 4), np.array([], np.float32), scales[2:]], opset=11, mode=mode)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("operator", ["RNN", "GRU", "LSTM"])
def test_recurrences(operator: str, direction: str) -> None:
    ways, gates = 1 + (direction == "bidirectional"), {"RNN": 1, "GRU": 3, "LSTM": 4}[operator]
    x, lengths = numbers(6, 3, 4), np.array([6, 2, 4], np.int32)
    weights: Arrays = [numbers(ways, gates * 5, 4, seed=1) / 2, numbers(ways, gates * 5, 5, seed=2) / 2]
    bias, hidden = numbers(ways, 2 * gates * 5, seed=3), numbers(ways, 3, 5, seed=4)
    options: dict[str, Any] = {"hidden_size": 5, "direction": direction}
    outputs = 3 if operator == "LSTM" else 2
    check(operator, [x, *weights], outputs, **options)
    for steps in (None, lengths):
        check(operator, [x, *weights, bias, steps, hidden], outputs, **options)
    if operator == "GRU":
        check(operator, [x, *weights, bias], outputs, linear_before_reset=1, **options)
    if operator == "LSTM":
        check(operator, [x, *weights, bias, lengths, hidden, hidden, numbers(ways, 15)], outputs, **options)
        check(operator, [x, *weights, bias], outputs, clip=0.3, **options)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("operator", ["RNN", "GRU", "LSTM"])
def test_loops_and_layers_have_the_same_gradients(operator: str, direction: str) -> None:
    """A bound that is never reached makes a loop of what torch has a layer for."""
    ways, gates = 1 + (direction == "bidirectional"), {"RNN": 1, "GRU": 3, "LSTM": 4}[operator]
    shapes = {"x": (5, 2, 4), "w": (ways, gates * 3, 4), "r": (ways, gates * 3, 3), "b": (ways, 2 * gates * 3)}
    inputs = [(name, FLOAT, shape) for name, shape in shapes.items()]
    gradients = []
    for clip in (0.0, 1e6):
        options = {"hidden_size": 3, "direction": direction, "clip": clip}
        options |= {"linear_before_reset": 1} if operator == "GRU" else {}
        model = lowered([helper.make_node(operator, list(shapes), ["y", "h"], **options)], inputs, [("y", FLOAT, None)])
        feeds = {name: torch.from_numpy(numbers(*shape)).requires_grad_() for name, shape in shapes.items()}
        model(**feeds)["y"].square().sum().backward()
        gradients.append([feed.grad for feed in feeds.values()])
    torch.testing.assert_close(*gradients)


def test_recurrences_with_other_activations() -> None:
    x, weights = numbers(4, 2, 3), [numbers(1, 15, 3, seed=1), numbers(1, 15, 5, seed=2)]
    names, alphas, betas = ["HardSigmoid", "ScaledTanh"], [0.3, 0.7], [0.4, 0.9]
    options = {"activations": names, "activation_alpha": alphas, "activation_beta": betas, "hidden_size": 5}
    check("GRU", [x, *weights], 2, **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normalisations(dtype: str) -> None:
    x, four, five = numbers(2, 4, 5, dtype=dtype), numbers(4, dtype=dtype), numbers(5, dtype=dtype)
    check("LayerNormalization", [x, five, five], epsilon=1e-3)
    check("LayerNormalization", [x, numbers(4, 5, dtype=dtype)], axis=1)
    check("BatchNormalization", [x, four, four, four, np.abs(four)])
    check("LpNormalization", [x], axis=1, p=1)
    if dtype == "float32":
        check("InstanceNormalization", [x, four, four])
        check("LayerNormalization", [x, five, five], outputs=3)
        check("LRN", [numbers(2, 7, 3, 2)], size=3, alpha=0.2)
        check("RMSNormalization", [x, five], opset=23)


def test_quantisation() -> None:
    x, scales = numbers(3, 4) * 9, np.array([0.5, 0.1, 2, 1], np.float32)
    for zero in (np.array([1, 2, 3, 4], np.uint8), np.array([0, -5, 7, 1], np.int8)):
        check("QuantizeLinear", [x, scales, zero], axis=1)
        check("DequantizeLinear", [numbers(3, 4, dtype=zero.dtype.name), scales, zero], axis=1)
    check("QuantizeLinear", [x, np.array(0.02, np.float32)])
    check("DynamicQuantizeLinear", [x], outputs=3)
    a, b = numbers(3, 4, dtype="uint8"), numbers(4, 5, dtype="uint8", seed=1)
    check("MatMulInteger", [a, b, np.array(3, np.uint8), np.array(2, np.uint8)])
    check(
        "ConvInteger",
        [numbers(1, 2, 5, 5, dtype="uint8"), numbers(3, 2, 3, 3, dtype="uint8"), np.array(4, np.uint8)],
        pads=[1] * 4,
    )
    scale, zero = np.array(0.1, np.float32), np.array(7, np.uint8)
    check("QLinearMatMul", [a, scale, zero, b, scale, zero, np.array(0.05, np.float32), zero])


def test_products() -> None:
    for a, b in [((3,), (3,)), ((2, 3), (3,)), ((3,), (4, 3, 2)), ((4, 1, 2, 3), (5, 3, 2))]:
        check("MatMul", [numbers(*a), numbers(*b)])
    check("MatMul", [numbers(2, 3, dtype="int32"), numbers(3, 2, dtype="int32")])
    for options in grid(transA=[0, 1], transB=[0, 1], alpha=[0.5, 1.0], beta=[2.0, 1.0]):
        check("Gemm", [numbers(3, 3), numbers(3, 3, seed=1), numbers(3)], **options)
    check("Gemm", [numbers(3, 3), numbers(3, 3), numbers(3, 1)])
    check("Einsum", [numbers(2, 3, 4), numbers(2, 4, 5)], equation="bij, bjk -> bik")
    check("Einsum", [numbers(2, 3, 4)], equation="...ij->...ji")
