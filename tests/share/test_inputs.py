"""Inputs for models: shapes, ranges, files."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sartor.share.errors import InputRefusedError, UsageError
from sartor.share.inputs import choose_source, load_inputs, random_inputs, save_arrays

I64, F32 = TensorProto.INT64, TensorProto.FLOAT
Port = tuple[str, int, Sequence[Any] | None]


def proto(
    nodes: Sequence[Any],
    inputs: Sequence[Port],
    outputs: Sequence[Port] = (),
    functions: Sequence[Any] = (),
    **weights: Any,
) -> Any:
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(*port) for port in inputs],
        [helper.make_tensor_value_info(*port) for port in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("test", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, functions=list(functions))


def model(*args: Any, **kwargs: Any) -> ir.Model:
    return ir.serde.deserialize_model(proto(*args, **kwargs))


def draw(source: ir.Model, seed: int = 0, **given: tuple[int, ...]) -> dict[str, Any]:
    return random_inputs(source, given, (seed, 0))


IDENTITY = helper.make_node("Identity", ["x"], ["y"])


def test_unknown_axes_get_documented_sizes() -> None:
    source = model([IDENTITY], [("x", F32, ["batch", 3, "width", None]), ("v", F32, ["width"]), ("n", F32, ["count"])])
    drawn = draw(source)
    assert {name: array.shape for name, array in drawn.items()} == {"x": (1, 3, 16, 16), "v": (16,), "n": (16,)}


def test_a_given_shape_names_an_input_and_binds_its_axes() -> None:
    source = model([IDENTITY], [("x", F32, ["batch", "seq"]), ("mask", F32, ["batch", 1, "seq"])])
    assert draw(source, x=(2, 5))["mask"].shape == (2, 1, 5)


def test_a_given_size_names_an_axis() -> None:
    source = model([IDENTITY], [("x", F32, ["batch", "seq"]), ("mask", F32, ["batch", 1, "seq"])])
    drawn = draw(source, seq=(7,), batch=(3,))
    assert (drawn["x"].shape, drawn["mask"].shape) == ((3, 7), (3, 1, 7))


def test_an_input_without_a_shape_takes_any() -> None:
    source = model([IDENTITY], [("x", F32, None)])
    assert draw(source, x=(2, 2)).keys() == {"x"}
    with pytest.raises(UsageError, match=r"input x: the model does not declare its shape. Give it as --shape x=1,128"):
        draw(source)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"z": (1,)}, "--shape z: no such input or axis. The inputs are x, mask"),
        ({"batch": (1, 2)}, "--shape batch: no such input or axis. The inputs are x, mask"),
        ({"x": (1, 2, 3)}, "--shape x=1,2,3: the model declares [batch,seq]"),
        ({"mask": (2, 2, 2)}, "--shape mask=2,2,2: the model declares [batch,1,seq]"),
        ({"x": (2, 5), "seq": (6,)}, "--shape seq: axis 'seq' can't be both 5 and 6. Give equal axes equal sizes"),
    ],
)
def test_sizes_that_do_not_fit_are_usage_errors(given: dict[str, tuple[int, ...]], message: str) -> None:
    source = model([IDENTITY], [("x", F32, ["batch", "seq"]), ("mask", F32, ["batch", 1, "seq"])])
    with pytest.raises(UsageError) as caught:
        random_inputs(source, given, (0, 0))
    assert str(caught.value) == message


def test_types_and_distributions() -> None:
    kinds = [TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BOOL, TensorProto.UINT8, TensorProto.STRING, I64]
    drawn = draw(model([], [(f"x{kind}", kind, [400]) for kind in kinds]))
    assert [array.dtype.name for array in drawn.values()] == ["float16", "float64", "bool", "uint8", "object", "int64"]
    normal = drawn[f"x{TensorProto.DOUBLE}"]
    assert abs(normal.mean()) < 0.2
    assert 0.8 < normal.std() < 1.2
    assert 0.3 < drawn[f"x{TensorProto.BOOL}"].mean() < 0.7
    assert set(drawn[f"x{I64}"]) == {0, 1}


def test_equal_seeds_give_equal_inputs() -> None:
    source = model([], [("x", F32, [8])])
    np.testing.assert_array_equal(draw(source, 3)["x"], draw(source, 3)["x"])
    assert not np.array_equal(draw(source, 3)["x"], draw(source, 4)["x"])


def test_inputs_with_initialisers_and_types_without_numpy() -> None:
    assert draw(model([IDENTITY], [("x", F32, [2]), ("w", F32, [2])], w=np.ones(2, np.float32))).keys() == {"x"}
    with pytest.raises(UsageError, match="input x: numpy has no type bfloat16"):
        draw(model([], [("x", TensorProto.BFLOAT16, [2])]))


TABLE = np.arange(12, dtype=np.float32).reshape(3, 4)


def reach(values: Any) -> set[int]:
    return set(np.asarray(values).reshape(-1).tolist())


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([helper.make_node("Gather", ["w", "i"], ["y"])], 3),
        ([helper.make_node("Gather", ["w", "i"], ["y"], axis=-1)], 4),
        ([helper.make_node("OneHot", ["i", "depth", "onoff"], ["y"])], 5),
        (
            [
                helper.make_node("Cast", ["i"], ["c"], to=TensorProto.INT32),
                helper.make_node("Unsqueeze", ["c", "one"], ["u"]),
                helper.make_node("Identity", ["u"], ["v"]),
                helper.make_node("Gather", ["w", "v"], ["y"]),
            ],
            3,
        ),
        # Two users: the smaller range holds.
        ([helper.make_node("Gather", ["w", "i"], ["a"], axis=1), helper.make_node("Gather", ["w", "i"], ["y"])], 3),
        # The axis of a data input takes its size from the default of its name.
        ([helper.make_node("Gather", ["x", "i"], ["y"], axis=1)], 16),
        ([helper.make_node("Gather", ["unknown", "i"], ["y"])], 1),
    ],
)
def test_indices_keep_to_the_indexed_axis(nodes: Sequence[Any], expected: int) -> None:
    source = model(
        nodes,
        [("i", I64, [300]), ("x", F32, ["batch", "seq"]), ("unknown", F32, None)],
        w=TABLE,
        one=np.array([1]),
        depth=np.array(5),
        onoff=np.array([0, 1], np.float32),
    )
    assert reach(draw(source, unknown=(2,))["i"]) == set(range(expected))


def test_indices_of_tuples_and_elements() -> None:
    nodes = [
        helper.make_node("GatherND", ["w", "n"], ["a"]),
        helper.make_node("GatherElements", ["w", "e"], ["b"], axis=1),
    ]
    drawn = draw(model(nodes, [("n", I64, [99, 2]), ("e", I64, [3, 99])], w=TABLE))
    assert (reach(drawn["n"]), reach(drawn["e"])) == ({0, 1, 2}, {0, 1, 2, 3})


def test_a_row_of_constants_to_compare_with_bounds_and_one_does_not() -> None:
    nodes = [helper.make_node("Equal", ["i", "row"], ["y"]), helper.make_node("Equal", ["one", "i"], ["z"])]
    drawn = draw(model(nodes, [("i", I64, [400, 1])], row=np.array([4, 5, 6]), one=np.array(99)))
    assert reach(drawn["i"]) == {4, 5, 6}


def test_sequence_lengths_are_at_least_one() -> None:
    lstm = helper.make_node("LSTM", ["x", "w", "r", "", "lens"], ["y"], hidden_size=2)
    lens = draw(model([lstm], [("x", F32, [4, 99, 1]), ("lens", TensorProto.INT32, [99])]))["lens"]
    assert reach(lens) == {1, 2, 3, 4}


def test_indices_are_traced_through_functions_and_subgraphs() -> None:
    lookup = helper.make_function(
        "test",
        "Lookup",
        ["table", "index"],
        ["out"],
        [helper.make_node("Identity", ["index"], ["j"]), helper.make_node("Gather", ["table", "j"], ["out"])],
        [helper.make_opsetid("", 20)],
    )
    branch = [
        helper.make_graph(
            [helper.make_node("Identity", ["i"], [name])], name, [], [helper.make_tensor_value_info(name, I64, [300])]
        )
        for name in ("yes", "no")
    ]
    nodes = [
        helper.make_node("If", ["flag"], ["chosen"], then_branch=branch[0], else_branch=branch[1]),
        helper.make_node("Lookup", ["w", "chosen"], ["y"], domain="test"),
    ]
    source = model(nodes, [("flag", TensorProto.BOOL, []), ("i", I64, [300])], functions=[lookup], w=TABLE)
    assert reach(draw(source)["i"]) == {0, 1, 2}
    assert len(source.functions) == 1


def test_indices_are_traced_through_loops() -> None:
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Gather", ["w", "state"], ["row"]),
            helper.make_node("Identity", ["go"], ["again"]),
            helper.make_node("Identity", ["state"], ["next"]),
        ],
        "body",
        [info("step", I64, []), info("go", TensorProto.BOOL, []), info("state", I64, [300])],
        [info("again", TensorProto.BOOL, []), info("next", I64, [300]), info("row", F32, None)],
    )
    loop = helper.make_node("Loop", ["trips", "", "i"], ["last", "rows"], body=body)
    assert reach(draw(model([loop], [("i", I64, [300])], w=TABLE, trips=np.array(2)))["i"]) == {0, 1, 2}


def test_the_examples_run_on_random_inputs(models: Path) -> None:
    for name in ("encoder.onnx", "cnn.onnx"):
        session = onnxruntime.InferenceSession(models / name)
        session.run(None, random_inputs(ir.load(models / name), {}, (0, 0)))


X = [("x", F32, ["batch", 3])]


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_a_file_gives_the_inputs(tmp_path: Path) -> None:
    x = np.ones((2, 3), np.float32)
    loaded = load_inputs(
        save(tmp_path / "in.npz", x=x, s=np.array(["a"])), model([], [*X, ("s", TensorProto.STRING, [1])])
    )
    np.testing.assert_array_equal(loaded["x"], x)
    assert loaded["s"].dtype == object


def test_an_optional_input_may_be_given(tmp_path: Path) -> None:
    w = np.zeros(2, np.float32)
    source = model([IDENTITY], [("x", F32, [2]), ("w", F32, [2])], w=np.ones(2, np.float32))
    assert load_inputs(save(tmp_path / "a.npz", x=w), source).keys() == {"x"}
    assert load_inputs(save(tmp_path / "b.npz", x=w, w=w), source).keys() == {"x", "w"}


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({}, "input 'x' is missing. The model wants x"),
        ({"x": np.ones((2, 3), np.float32), "z": 1}, "the model has no input 'z'. It wants x"),
        ({"x": np.ones((2, 3))}, "input 'x' is float64, the model wants float32. Convert it"),
        ({"x": np.ones(3, np.float32)}, "input 'x' is [3], the model wants [batch,3]. Reshape it"),
        ({"x": np.ones((2, 4), np.float32)}, "input 'x' is [2,4], the model wants [batch,3]. Reshape it"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, Any], reason: str) -> None:
    path = save(tmp_path / "in.npz", **arrays)
    with pytest.raises(InputRefusedError) as caught:
        load_inputs(path, model([], X))
    assert str(caught.value) == f"{path}: {reason}"


def damaged_files(folder: Path) -> dict[str, Path]:
    whole = save(folder / "whole.npz", x=np.ones((200, 3), np.float32)).read_bytes()
    contents = {
        "empty": b"",
        "text": b"hello",
        "cut": whole[: len(whole) // 2],
        "flipped": whole[:200] + b"!" + whole[201:],
    }
    np.save(folder / "one.npy", np.ones(3))
    np.savez(folder / "objects.npz", x=np.array([{}], object))
    for name, content in contents.items():
        (folder / f"{name}.npz").write_bytes(content)
    return {name: folder / f"{name}.npz" for name in [*contents, "objects"]} | {"one": folder / "one.npy"}


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    files = damaged_files(tmp_path)
    broken = "this is no intact .npz file. Write it by numpy.savez without objects"
    reasons = {**dict.fromkeys(files, broken), "one": "this is one array, not an .npz file. Write it by numpy.savez"}
    for name, path in [*files.items(), ("absent", tmp_path / "absent.npz")]:
        with pytest.raises(InputRefusedError) as caught:
            load_inputs(path, model([], X))
        assert str(caught.value) == f"{path}: {reasons.get(name, 'no such file or directory. Check the path')}"


def test_flipped_bits_are_refused_or_harmless(tmp_path: Path) -> None:
    path = save(tmp_path / "in.npz", x=np.ones((2, 3), np.float32))
    whole = path.read_bytes()
    refused = 0
    for position in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            load_inputs(path, model([], X))
        except InputRefusedError:
            refused += 1
    assert refused > len(whole)


def test_exactly_one_source_of_inputs() -> None:
    source = model([], X)
    assert choose_source(source, "in.npz", False) == "in.npz"
    assert choose_source(source, None, True) is None
    assert choose_source(model([], []), None, False) is None
    with pytest.raises(UsageError, match="--input and --random exclude each other"):
        choose_source(source, "in.npz", True)
    with pytest.raises(UsageError, match=r"the model wants x. Give them by --input FILE.npz or draw them by --random"):
        choose_source(source, None, False)


def test_saved_arrays_read_back_and_have_no_clock_in_them() -> None:
    arrays = {"a/b": np.arange(6).reshape(2, 3), "s": np.array(["x", "yz"], object), "z": np.float32(1)}
    data = save_arrays(arrays)
    assert data == save_arrays(arrays)
    with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
        assert loaded.files == list(arrays)
        np.testing.assert_array_equal(loaded["a/b"], arrays["a/b"])
        assert loaded["s"].tolist() == ["x", "yz"]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    with pytest.raises(UsageError, match=r"output q: only tensors can be written as .npz"):
        save_arrays({"q": [np.ones(1)]})
