"""Evaluation data is read as it was meant, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from tests.kits import prune_kit as kit

from sartor.share.data import open_data
from sartor.share.errors import InputRefusedError

X = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3)).astype(np.uint8)
Y = np.arange(6) % 5
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]


@pytest.fixture(scope="module")
def model() -> ir.Model:
    """Return a network that reads (batch, 3, 8, 8)."""
    return kit.read(kit.random_network(0, 3))


def hdf5(path: Path, arrays: dict[str, Any], **attributes: Any) -> Path:
    """Write arrays, and attributes of train/x."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        file["train/x"].attrs.update(attributes)
    return path


def npz(path: Path, arrays: dict[str, Any], **attributes: Any) -> Path:
    """Write arrays, and attributes of train/x."""
    np.savez(path, **arrays, **{f"train/x@{name}": value for name, value in attributes.items()})
    return path


@pytest.mark.parametrize(("write", "suffix"), [(hdf5, "h5"), (npz, "npz")])
def test_images_become_what_the_model_reads(write: Any, suffix: str, model: ir.Model, tmp_path: Path) -> None:
    arrays = {"train/x": X, "train/y": Y}
    path = write(tmp_path / f"d.{suffix}", arrays, layout="NHWC", scale=1 / 255, mean=MEAN, std=STD)
    with open_data(path, model) as data:
        split = data.split("train", 4)
        assert data.split("val") is None
    assert split is not None
    assert len(split) == 4
    expected = ((X[:4] / 255 - MEAN) / STD).transpose(0, 3, 1, 2)
    (x,), (y,) = split.inputs.values(), split.labels.values()
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)
    assert x.dtype == np.float32
    assert y.tolist() == Y[:4].tolist()


def test_labels_may_be_absent_and_names_given(model: ir.Model, tmp_path: Path) -> None:
    path = hdf5(tmp_path / "d.h5", {"train/x": X.transpose(0, 3, 1, 2), "val/x/x": np.zeros((2, 3, 8, 8), np.float32)})
    with open_data(path, model) as data:
        split = data.split("val")
    assert split is not None
    assert (len(split), split.labels, list(split.inputs)) == (2, {}, ["x"])


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"train/x": X}, r"samples of \[8, 8, 3\], the model's input 'x' is \['\?', 3, 8, 8\]"),
        ({"train/x/z": X}, "'train/x/z' is not of this model"),
        ({"train/x": X.transpose(0, 3, 1, 2), "train/y": Y[:4]}, r"train has arrays of \[4, 6\] samples"),
        ({"train/x": X.transpose(0, 3, 1, 2), "val/y": Y}, "it has val/y without val/x"),
        ({"train/x": X.transpose(0, 3, 1, 2), "weights": Y}, "it has 'weights'"),
        ({"train/x": np.zeros((0, 3, 8, 8), np.float32)}, r"train has arrays of \[0\] samples"),
    ],
)
def test_what_does_not_fit_is_refused(arrays: dict[str, Any], reason: str, model: ir.Model, tmp_path: Path) -> None:
    file = tmp_path / "d.npz"
    np.savez(file, **arrays)
    with pytest.raises(InputRefusedError, match=reason), open_data(file, model):
        pass


def test_unknown_layouts_are_refused(model: ir.Model, tmp_path: Path) -> None:
    path = hdf5(tmp_path / "d.h5", {"train/x": X}, layout="CHWN")
    with pytest.raises(InputRefusedError, match="layout 'CHWN'"), open_data(path, model):
        pass


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut", b"\x89HDF\r\n\x1a\n cut"])
def test_damaged_files_are_refused(content: bytes, model: ir.Model, tmp_path: Path) -> None:
    path = tmp_path / "d.h5"
    path.write_bytes(content)
    with pytest.raises(InputRefusedError), open_data(path, model):
        pass


def scaled() -> ir.Model:
    """Return a model of samples (n, 3) and a number that they share."""
    head = '<ir_version: 10, opset_import: ["" : 20]> g (float[n, 3] x, float rate) => (float[n, 3] y)'
    text = head + "{ y = Mul(x, rate) }"
    return ir.serde.deserialize_model(onnx.parser.parse_model(text))


@pytest.mark.parametrize("write", [hdf5, npz])
def test_a_number_that_all_samples_share(write: Any, tmp_path: Path) -> None:
    x = np.ones((5, 3), np.float32)
    path = write(tmp_path / f"d.{'h5' if write is hdf5 else 'npz'}", {"train/x/x": x, "train/x/rate": np.float32(0.5)})
    with open_data(path, scaled(), {"x": 0, "rate": None}) as data:
        split = data.split("train", 2)
    assert split is not None
    assert (len(split), split.inputs.keys(), split.shared["rate"].shape) == (2, {"x"}, ())
    assert split.shared["rate"] == np.float32(0.5)


def test_a_number_for_each_sample_is_refused_where_they_share_it(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "d.h5", {"train/x/x": np.ones((5, 3), np.float32), "train/x/rate": np.ones(5, np.float32)})
    reason = r"train/x/rate has the shape \[5\], the model's input is one number"
    with pytest.raises(InputRefusedError, match=reason), open_data(path, scaled(), {"x": 0, "rate": None}):
        pass
