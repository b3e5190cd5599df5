"""Inputs for a model: seeded random ones that fit its types, sizes and index ranges, or those of an .npz file.

An axis without a size gets one by name (equal names, equal sizes): 1 where it is the first axis of an input with two or
more axes (a batch), otherwise 16. The first occurrence of a name decides, and a size that the caller gives comes first.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import onnx_ir as ir

from sartor.share.errors import InputRefusedError, UsageError
from sartor.share.indices import IndexRange, index_ranges

if TYPE_CHECKING:
    from numpy.typing import NDArray

Arrays = dict[str, "NDArray[Any]"]
Sizes = Mapping[str, tuple[int, ...]]

BATCH_SIZE = 1
AXIS_SIZE = 16
_SMALL = IndexRange(0, 2)
# What zipfile, zlib and numpy raise on damaged archives and array headers.
_DAMAGE = (BadZipFile, EOFError, KeyError, MemoryError, NotImplementedError, RuntimeError, ValueError, zlib.error)
_WORDS = ("alpha", "beta", "gamma", "delta", "")


@dataclass(frozen=True)
class Shapes:
    """The whole shape of every input, and the size of every named axis."""

    inputs: dict[str, tuple[int, ...]]
    axes: dict[str, int]


def required_inputs(model: ir.Model) -> tuple[ir.Value, ...]:
    """Return the inputs that a caller has to give: those without an initialiser."""
    return tuple(value for value in model.graph.inputs if value.name not in model.graph.initializers)


def random_inputs(model: ir.Model, given: Sizes, seed: Sequence[int]) -> Arrays:
    """Draw every required input: normal floats, fair booleans, indices in their range, other integers 0 or 1.

    Raises UsageError for sizes that do not fit and for inputs that are no tensors of a numpy type.
    """
    shapes = resolve_shapes(required_inputs(model), given)
    ranges = index_ranges(model, shapes.axes)
    generator = np.random.default_rng(list(seed))
    return {
        name: _draw(generator, _numpy_type(value), shapes.inputs[name], ranges.get(name, _SMALL))
        for name, value in _named(required_inputs(model))
    }


def resolve_shapes(inputs: Sequence[ir.Value], given: Sizes) -> Shapes:
    """Give every input a whole shape; `given` names inputs (all sizes) or axes (one size).

    Raises UsageError for a name that is neither, and for sizes that contradict the model or each other.
    """
    axes = _given_axes(inputs, given)
    for name, value in _named(inputs):
        if name not in given:
            _name_default_axes(value, axes)
    return Shapes({name: given.get(name) or _sizes_of(value, axes) for name, value in _named(inputs)}, axes)


def load_inputs(path: str | Path, model: ir.Model) -> Arrays:
    """Read every required input from an .npz file.

    Raises InputRefusedError for a damaged file, and for names, types or shapes that are not the model's.
    """
    arrays = read_npz(path)
    expected = dict(_named(required_inputs(model)))
    unused = set(arrays) - {value.name for value in model.graph.inputs}
    if missing := sorted(set(expected) - set(arrays)):
        raise _bad_file(path, f"input {missing[0]!r} is missing", f"The model wants {_listed(expected)}")
    if unused:
        raise _bad_file(path, f"the model has no input {min(unused)!r}", f"It wants {_listed(expected)}")
    return {name: _fitting(path, value, arrays[name]) for name, value in _named(model.graph.inputs) if name in arrays}


def choose_source(model: ir.Model, path: str | None, random: bool) -> str | None:
    """Return the file of the inputs, or None for random ones; raises UsageError unless one of them is asked for."""
    if path is not None and random:
        raise UsageError("--input and --random exclude each other", remedy="Leave out one of the two")
    if path is None and not random and required_inputs(model):
        names = _listed(dict(_named(required_inputs(model))))
        raise UsageError(f"the model wants {names}", remedy="Give them by --input FILE.npz or draw them by --random")
    return path


def save_arrays(arrays: Mapping[str, Any]) -> bytes:
    """Return the bytes of an .npz file; equal arrays give equal bytes; raises UsageError for a sequence or map."""
    from io import BytesIO
    from zipfile import ZipFile, ZipInfo

    buffer = BytesIO()
    with ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            # ZipInfo's own date is 1980, where numpy.savez would write the clock's.
            with archive.open(ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, _storable(name, array), allow_pickle=False)
    return buffer.getvalue()


def _named(values: Sequence[ir.Value]) -> Iterator[tuple[str, ir.Value]]:
    for value in values:
        assert value.name is not None
        yield value.name, value


def _dimensions(value: ir.Value) -> tuple[int | str | None, ...]:
    """Return the declared axes; raises UsageError where the model declares none."""
    if value.shape is None:
        reason = "the model does not declare its shape"
        raise UsageError(reason, subject=f"input {value.name}", remedy=f"Give it as --shape {value.name}=1,128")
    return tuple(axis if isinstance(axis, int) else axis.value for axis in value.shape)


def _given_axes(inputs: Sequence[ir.Value], given: Sizes) -> dict[str, int]:
    """Return the sizes of the named axes that follow from what the caller gave."""
    values = dict(_named(inputs))
    axes: dict[str, int] = {}
    for name, sizes in given.items():
        if name in values:
            _bind_input(values[name], sizes, axes)
        elif any(name in _dimensions(value) for value in inputs if value.shape is not None) and len(sizes) == 1:
            _bind(name, sizes[0], axes, name)
        else:
            raise UsageError(
                "no such input or axis", subject=f"--shape {name}", remedy=f"The inputs are {_listed(values)}"
            )
    return axes


def _bind_input(value: ir.Value, sizes: tuple[int, ...], axes: dict[str, int]) -> None:
    if value.shape is None:
        return
    declared = _dimensions(value)
    fits = len(declared) == len(sizes)
    fits = fits and all(not isinstance(axis, int) or axis == size for axis, size in zip(declared, sizes, strict=True))
    if not fits:
        raise UsageError(f"the model declares {_shown(declared)}", subject=f"--shape {value.name}={_joined(sizes)}")
    for axis, size in zip(declared, sizes, strict=True):
        if isinstance(axis, str):
            _bind(axis, size, axes, str(value.name))


def _bind(axis: str, size: int, axes: dict[str, int], subject: str) -> None:
    if axes.setdefault(axis, size) != size:
        reason = f"axis {axis!r} can't be both {axes[axis]} and {size}"
        raise UsageError(reason, subject=f"--shape {subject}", remedy="Give equal axes equal sizes")


def _name_default_axes(value: ir.Value, axes: dict[str, int]) -> None:
    declared = _dimensions(value)
    for place, axis in enumerate(declared):
        if isinstance(axis, str):
            axes.setdefault(axis, _default_size(place, len(declared)))


def _sizes_of(value: ir.Value, axes: Mapping[str, int]) -> tuple[int, ...]:
    declared = _dimensions(value)
    return tuple(
        axis if isinstance(axis, int) else _default_size(place, len(declared)) if axis is None else axes[axis]
        for place, axis in enumerate(declared)
    )


def _default_size(place: int, rank: int) -> int:
    return BATCH_SIZE if place == 0 and rank > 1 else AXIS_SIZE


def _numpy_type(value: ir.Value) -> np.dtype[Any]:
    """Return the numpy type of a tensor input; raises UsageError for sequences, maps and types numpy lacks."""
    if not isinstance(value.type, ir.TensorType):
        raise UsageError("only tensors can be given", subject=f"input {value.name}")
    if value.type.dtype == ir.DataType.STRING:
        return np.dtype(object)
    dtype = np.dtype(value.type.dtype.numpy())
    # Types that ml_dtypes adds have a kind of their own or a void one; sessions do not take them from numpy.
    if dtype.kind not in "biufc" or dtype.name not in np.sctypeDict:
        raise UsageError(f"numpy has no type {value.type.dtype.name.lower()}", subject=f"input {value.name}")
    return dtype


def _draw(
    generator: np.random.Generator, dtype: np.dtype[Any], shape: tuple[int, ...], numbers: IndexRange
) -> NDArray[Any]:
    if dtype.kind == "O":
        return np.array(generator.choice(_WORDS, size=shape), dtype=object)
    if dtype.kind == "b":
        return np.asarray(generator.random(shape) < 0.5)
    if dtype.kind in "iu":
        return np.asarray(generator.integers(numbers.low, max(numbers.high, numbers.low + 1), size=shape)).astype(dtype)
    if dtype.kind == "c":
        return np.asarray(generator.standard_normal(shape) + 1j * generator.standard_normal(shape)).astype(dtype)
    return np.asarray(generator.standard_normal(shape)).astype(dtype)


def read_npz(path: str | Path) -> Arrays:
    """Read all arrays of an .npz file; raises InputRefusedError for a file that is none, or damaged."""
    try:
        # A file handle of our own: numpy leaves its own open when the file is no archive.
        with open(path, "rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                raise _bad_file(path, "this is one array, not an .npz file", "Write it by numpy.savez")
            return {name: content[name] for name in content.files}
    except OSError as error:
        raise _bad_file(path, (error.strerror or str(error)).lower(), "Check the path") from error
    except _DAMAGE as error:
        raise _bad_file(path, "this is no intact .npz file", "Write it by numpy.savez without objects") from error


def _fitting(path: str | Path, value: ir.Value, array: NDArray[Any]) -> NDArray[Any]:
    """Return the array if its type, rank and fixed sizes are those of the input."""
    wanted = _numpy_type(value)
    if wanted.kind == "O" and array.dtype.kind in "US":
        array = array.astype(str).astype(object)
    if array.dtype != wanted:
        name = "strings" if wanted.kind == "O" else str(wanted)
        raise _bad_file(path, f"input {value.name!r} is {array.dtype}, the model wants {name}", "Convert it")
    if value.shape is None:
        return array
    declared = _dimensions(value)
    same = len(declared) == array.ndim
    if not same or any(
        isinstance(axis, int) and axis != size for axis, size in zip(declared, array.shape, strict=True)
    ):
        reason = f"input {value.name!r} is [{_joined(array.shape)}], the model wants {_shown(declared)}"
        raise _bad_file(path, reason, "Reshape it")
    return array


def _storable(name: str, array: Any) -> NDArray[Any]:
    if not isinstance(array, np.ndarray | np.generic):
        raise UsageError("only tensors can be written as .npz", subject=f"output {name}")
    plain = np.asarray(array)
    return plain.astype(str) if plain.dtype.kind == "O" else plain


def _bad_file(path: str | Path, reason: str, remedy: str) -> InputRefusedError:
    return InputRefusedError(reason, subject=str(path), remedy=remedy)


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(names) or "no inputs"


def _joined(sizes: Sequence[int]) -> str:
    return ",".join(str(size) for size in sizes)


def _shown(declared: Sequence[int | str | None]) -> str:
    return f"[{','.join('?' if axis is None else str(axis) for axis in declared)}]"
