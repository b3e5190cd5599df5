"""Evaluation data: splits `train`, `val` and `test` of inputs `x` and labels `y`, in HDF5 or .npz.

    train/x   (n, ...) the inputs of n samples, or a group with one dataset for each input of the model, by name
    train/y   (n, ...) labels, or a group with one dataset for each labelled output, by name; may be absent

An input that is one number for all samples, such as a rate, is stored as that number. Inputs may be stored small.
Attributes say how to get from there to what the model reads: `layout` "NHWC" moves the last axis to where the channels
are, then the numbers become x * scale, minus `mean`, divided by `std` (numbers, or one for each channel). In an .npz
file the attribute of `train/x` is an array `train/x@scale`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sartor.share.artifact import Kind, identify, open_hdf5
from sartor.share.errors import InputRefusedError
from sartor.share.inputs import read_npz, required_inputs

SPLITS = ("train", "val", "test")
ATTRIBUTES = ("layout", "scale", "mean", "std")
LAYOUTS = ("NCHW", "NHWC")
Axes = Mapping[str, int | None]
"""The axis of the samples of inputs and outputs by name, 0 of those not named; None of what all samples share."""

_FIRST: Axes = MappingProxyType({})


@dataclass(frozen=True)
class Stored:
    """An array as it is stored, with its attributes; `read` gives the first samples, all where the limit is None."""

    name: str
    array: Any
    attributes: Mapping[str, Any]

    @property
    def layout(self) -> str:
        """The order of the axes."""
        found = self.attributes.get("layout", LAYOUTS[0])
        return found.decode() if isinstance(found, bytes) else str(found)

    def read(self, limit: int | None) -> NDArray[Any]:
        """Return the numbers of the first samples, as float32 where attributes change them."""
        found = np.asarray(self.array[: limit if limit is not None else len(self.array)])
        if self.layout == "NHWC":
            found = np.moveaxis(found, -1, 1)
        if not self.attributes.keys() & {"scale", "mean", "std"}:
            return found
        wide = found.astype(np.float32) * np.float32(self.attributes.get("scale", 1))
        for name, change in (("mean", np.subtract), ("std", np.divide)):
            if name in self.attributes:
                wide = change(wide, self._channelwise(name, wide.ndim))
        return wide

    def _channelwise(self, name: str, rank: int) -> NDArray[np.float32]:
        numbers = np.asarray(self.attributes[name], np.float32)
        return numbers.reshape(-1, *(1,) * (rank - 2)) if numbers.ndim else numbers


@dataclass(frozen=True)
class Split:
    """Samples: inputs by name, and labels by the name of the output; equal first axes. `shared` are other inputs."""

    inputs: dict[str, NDArray[Any]]
    labels: dict[str, NDArray[Any]]
    shared: dict[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(next(iter(self.inputs.values())))


@dataclass(frozen=True)
class Data:
    """The splits of a file, as they are stored."""

    path: str
    inputs: dict[str, dict[str, Stored]]
    labels: dict[str, dict[str, Stored]]
    shared: frozenset[str] = frozenset()
    """The inputs that all samples of a split share."""

    def split(self, name: str, limit: int | None = None) -> Split | None:
        """Read the first samples of a split; None where the file has none of that name."""
        if name not in self.inputs:
            return None
        held = self.inputs[name]
        inputs = {key: stored.read(limit) for key, stored in held.items() if key not in self.shared}
        shared = {key: np.asarray(stored.array[()]) for key, stored in held.items() if key in self.shared}
        labels = {key: stored.read(limit) for key, stored in self.labels[name].items()}
        return Split(inputs, labels, shared)


@contextmanager
def open_data(path: str | Path, model: ir.Model, axes: Axes = _FIRST) -> Iterator[Data]:
    """Open the data of a model; raises InputRefusedError for what is damaged or does not fit the model.

    In the file the samples come first, whatever `axes` says.
    """
    with _opened(path) as arrays:
        found = _sorted(str(path), arrays, model, frozenset(name for name, axis in axes.items() if axis is None))
        for name in found.inputs:
            _check(found, name, model, axes)
        yield found


@contextmanager
def _opened(path: str | Path) -> Iterator[dict[str, Stored]]:
    """Yield all arrays of a file by their path."""
    if identify(path) is Kind.HDF5:
        import h5py

        with open_hdf5(path) as file:
            arrays: dict[str, Stored] = {}

            def visit(name: str, item: Any) -> None:
                if isinstance(item, h5py.Dataset):
                    arrays[name] = Stored(name, item, dict(item.attrs))

            file.visititems(visit)
            yield arrays
        return
    content = read_npz(path)
    plain = {name: array for name, array in content.items() if "@" not in name}
    yield {name: Stored(name, array, _attributes(content, name)) for name, array in plain.items()}


def _attributes(content: Mapping[str, NDArray[Any]], name: str) -> dict[str, Any]:
    return {key: content[f"{name}@{key}"][()] for key in ATTRIBUTES if f"{name}@{key}" in content}


def _sorted(path: str, arrays: Mapping[str, Stored], model: ir.Model, shared: frozenset[str]) -> Data:
    """Sort arrays into splits; a single x belongs to the only input, a single y to the first output."""
    inputs = [str(value.name) for value in required_inputs(model)]
    outputs = [str(value.name) for value in model.graph.outputs]
    found: dict[str, dict[str, dict[str, Stored]]] = {"x": {}, "y": {}}
    for name, stored in arrays.items():
        split, _, rest = name.partition("/")
        kind, _, key = rest.partition("/")
        if split not in SPLITS or kind not in found:
            raise _refused(path, f"it has {name!r}", f"Names are {', '.join(SPLITS)}, then x or y")
        known = inputs if kind == "x" else outputs
        if not key and (kind == "y" or len(known) == 1):
            key = known[0]
        if key not in known:
            what = "inputs" if kind == "x" else "outputs"
            raise _refused(path, f"{name!r} is not of this model", f"Its {what} are {', '.join(known)}")
        found[kind].setdefault(split, {})[key] = stored
    for split in found["y"]:
        if split not in found["x"]:
            raise _refused(path, f"it has {split}/y without {split}/x", "Add the inputs")
    return Data(path, found["x"], {split: found["y"].get(split, {}) for split in found["x"]}, shared)


def _check(data: Data, split: str, model: ir.Model, axes: Axes) -> None:
    for value in required_inputs(model):
        if value.name not in data.inputs[split]:
            raise _refused(data.path, f"{split}/x lacks the input {value.name!r}", "Add it by name")
        axis = axes.get(value.name, 0)
        if axis is None:
            _check_shared(data, data.inputs[split][value.name])
        else:
            _check_input(data, split, value, axis)
    sampled = (stored for name, stored in data.inputs[split].items() if name not in data.shared)
    every = (*sampled, *data.labels[split].values())
    counts = {len(stored.array) if stored.array.shape else 0 for stored in every}
    if counts == {0} or len(counts) > 1:
        raise _refused(data.path, f"{split} has arrays of {sorted(counts)} samples", "Give each sample one of each")


def _check_shared(data: Data, stored: Stored) -> None:
    if stored.array.shape:
        reason = f"{stored.name} has the shape {list(stored.array.shape)}, the model's input is one number"
        raise _refused(data.path, reason, "Store that number alone: all samples share it")


def _check_input(data: Data, split: str, value: ir.Value, axis: int) -> None:
    stored = data.inputs[split][str(value.name)]
    if stored.layout not in LAYOUTS:
        raise _refused(data.path, f"{stored.name} has layout {stored.layout!r}", f"Layouts are {', '.join(LAYOUTS)}")
    sample = stored.read(1)
    declared = None if value.shape is None else [size if isinstance(size, int) else None for size in value.shape]
    if declared is None:
        return
    others = declared[:axis] + declared[axis + 1 :]
    fits = len(declared) == sample.ndim and all(
        want in (None, have) for want, have in zip(others, sample.shape[1:], strict=True)
    )
    if not fits:
        shown = ["?" if size is None else size for size in declared]
        reason = f"{stored.name} has samples of {list(sample.shape[1:])}, the model's input {value.name!r} is {shown}"
        raise _refused(data.path, reason, "Reshape it, or set its layout")


def _refused(path: str, reason: str, remedy: str) -> InputRefusedError:
    return InputRefusedError(reason, subject=path, remedy=remedy)
