"""Read the state dict of an nn.RNN, nn.GRU or nn.LSTM as the ONNX model that computes what the module does.

Source: names, shapes and order of gates as torch.nn.LSTM, GRU and RNN document them under "Variables".
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sartor.share.artifact import Kind, Model, check_safetensors, identify, read_model, read_stdin
from sartor.share.artifact.contents import quote
from sartor.share.artifact.read import STDIN_SUBJECT
from sartor.share.artifact.sniff import HEAD_SIZE, kind_of, refuse_unless, unreadable
from sartor.share.console import warn
from sartor.share.errors import InputRefusedError
from sartor.tools.sparse_rnn import oracle
from sartor.tools.sparse_rnn.stacked import Stack, model_of

Array = NDArray[Any]

ARCHIVES = frozenset({Kind.SAFETENSORS, Kind.TORCH})
SUFFIXES = (".safetensors", ".pt", ".pth")
KINDS: dict[int, oracle.Kind] = {1: "RNN", 3: "GRU", 4: "LSTM"}
"""The kinds by the rows of weight_hh over its columns."""

ORDER: dict[oracle.Kind, tuple[int, ...]] = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2)}
"""Where torch has the gates of ONNX: r z n for z r h, and i f g o for i o f c."""

MOST_NAMED = 5
_KEY = re.compile(
    r"(?P<prefix>(?:.*\.)?)(?P<part>(?:weight|bias)_[ih]h|weight_hr)_l(?P<layer>0|[1-9][0-9]{0,3})(?P<reverse>_reverse)?"
)


@dataclass(frozen=True)
class Key:
    """The name of a tensor taken apart."""

    prefix: str
    part: str
    layer: int
    reverse: bool


@dataclass(frozen=True)
class Read:
    """A model as read, and what people should know of how it was."""

    model: Model
    notes: tuple[str, ...] = ()


def read_source(source: str) -> Read:
    """Read a model, or a state dict as one, from a file, or from standard input for "-"; warns of what is noted.

    Raises InputRefusedError, and UsageError if standard input is a terminal.
    """
    if source == "-":
        data = read_stdin(ARCHIVES)
        piped = kind_of(data[:HEAD_SIZE]) in ARCHIVES
        read = read_state_dict(STDIN_SUBJECT, data) if piped else Read(read_model(source, data))
    else:
        read = read_state_dict(source) if holds_state_dict(source) else Read(read_model(source))
    for note in read.notes:
        warn(f"{read.model.source}: {note}")
    return read


def holds_state_dict(source: str) -> bool:
    """Tell whether a file is one of tensors, by its content or else by its suffix."""
    path = Path(source)
    if not path.is_file():
        return False
    kind = identify(path)
    return kind in ARCHIVES or (kind is not Kind.ONNX and path.suffix.lower() in SUFFIXES)


def read_state_dict(source: str, data: bytes | None = None) -> Read:
    """Read the recurrent module of a safetensors file or PyTorch archive, or of its bytes, as an ONNX model.

    Raises InputRefusedError for a file that is damaged, holds code, or has not exactly one module that ONNX has too.
    """
    path = Path(source) if data is None else None
    if path is not None:
        data = _bytes_of(path)
    assert data is not None
    kind = kind_of(data[:HEAD_SIZE])
    content = _safetensors(data, source) if kind is Kind.SAFETENSORS else _archive(data, kind, source)
    keys = {name: key for name in content if (key := _key_of(name)) is not None}
    _check_names(keys.values(), source)
    arrays = {key: _array(name, content[name], source) for name, key in keys.items()}
    notes = [*_left_out([str(name) for name in content if name not in keys]), *_rounded(keys, content)]
    model = Model(model_of(_stack(arrays, source)), source, path, hashlib.sha256(data).hexdigest())
    return Read(model, tuple(notes))


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def _safetensors(data: bytes, subject: str) -> Mapping[Any, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    check_safetensors(data, subject)
    try:
        return load(data)
    except (SafetensorError, KeyError) as error:
        raise _refusal(f"the tensors can't be read ({error})", subject, "Save the state dict again") from None


def _archive(data: bytes, kind: Kind, subject: str) -> Mapping[Any, Any]:
    import torch

    if kind is not Kind.PICKLE:
        refuse_unless(kind, Kind.TORCH, subject)
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    # A damaged archive raises whatever its bytes lead to; a pickle with code an UnpicklingError.
    except Exception as error:
        reason = f"the archive is damaged or holds more than tensors ({type(error).__name__})"
        raise _refusal(reason, subject, "Save module.state_dict() with torch.save") from error
    if not isinstance(content, dict):
        reason = f"the archive holds a {type(content).__name__}, not a state dict"
        raise _refusal(reason, subject, "Save module.state_dict() with torch.save")
    return content


def _key_of(name: Any) -> Key | None:
    match = _KEY.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        return None
    return Key(match["prefix"], match["part"], int(match["layer"]), match["reverse"] is not None)


def _check_names(keys: Iterable[Key], subject: str) -> None:
    found = list(keys)
    prefixes = sorted({key.prefix for key in found})
    if not prefixes:
        raise _refusal(
            "it has no recurrent layer", subject, "Save an nn.LSTM, nn.GRU or nn.RNN: weight_ih_l0 and so on"
        )
    if len(prefixes) > 1:
        reason = f"it has {len(prefixes)} recurrent modules, {_listed(prefixes)}"
        raise _refusal(reason, subject, "Save the state dict of one of them")
    if any(key.part == "weight_hr" for key in found):
        raise _refusal("it has projections (weight_hr), which ONNX has not", subject, "Train without proj_size")


def _left_out(names: Sequence[str]) -> list[str]:
    return [f"left out, as no recurrent layer has such names: {_listed(names)}"] if names else []


def _rounded(keys: Iterable[Any], content: Mapping[Any, Any]) -> list[str]:
    import torch

    wide = sorted(str(name) for name in keys if content[name].dtype == torch.float64)
    return [f"its float64 tensors are rounded to float32: {_listed(wide)}"] if wide else []


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(quote(name) for name in names[:MOST_NAMED])
    return shown if len(names) <= MOST_NAMED else f"{shown} and {len(names) - MOST_NAMED} more"


def _array(name: str, value: Any, subject: str) -> Array:
    """Return a tensor as float32."""
    import torch

    plain = isinstance(value, torch.Tensor) and value.layout is torch.strided and not value.is_meta
    if not plain or not value.is_floating_point():
        what = str(value.dtype) if isinstance(value, torch.Tensor) else type(value).__name__
        raise _refusal(f"{quote(name)} is {what}, not dense floats", subject, "Save the module in floating point")
    narrow = value.detach().to(torch.float32)
    if bool((narrow.isinf() & ~value.isinf()).any()):
        raise _refusal(f"{quote(name)} has numbers beyond those of float32", subject, "Scale the module down")
    array: Array = narrow.numpy()
    return array


def _stack(arrays: Mapping[Key, Array], subject: str) -> Stack:
    prefix = next(iter(arrays)).prefix
    layers = {key.layer for key in arrays}
    # Without gaps there are as many layers as the last one's number says.
    depth = len(layers) if max(layers) < len(layers) else next(k for k in range(len(layers) + 1) if k not in layers) + 1
    reverse = (False, True) if any(key.reverse for key in arrays) else (False,)
    parts = ["weight_ih", "weight_hh"]
    parts += ["bias_ih", "bias_hh"] if any(key.part.startswith("bias") for key in arrays) else []
    wanted = [Key(prefix, part, k, back) for k in range(depth) for back in reverse for part in parts]
    missing = [_name(key) for key in wanted if key not in arrays]
    if missing:
        raise _refusal(f"it lacks {_listed(missing)}", subject, "Save the whole state dict of the module")
    kind = _kind(arrays[Key(prefix, "weight_hh", 0, False)], subject)
    _check_shapes(arrays, kind, len(reverse), subject)
    weights = tuple(_weights(arrays, kind, prefix, k, reverse) for k in range(depth))
    return Stack(kind, prefix, weights)


def _name(key: Key) -> str:
    return f"{key.prefix}{key.part}_l{key.layer}{'_reverse' if key.reverse else ''}"


def _kind(recurrent: Array, subject: str) -> oracle.Kind:
    shape = recurrent.shape
    whole = len(shape) == 2 and shape[1] > 0 and shape[0] % shape[1] == 0
    kind = KINDS.get(shape[0] // shape[1]) if whole else None
    if kind is None:
        reason = f"weight_hh_l0 has the shape {list(shape)}, not 1, 3 or 4 times as many rows as columns"
        raise _refusal(reason, subject, "Save an nn.RNN, nn.GRU or nn.LSTM")
    return kind


def _check_shapes(arrays: Mapping[Key, Array], kind: oracle.Kind, directions: int, subject: str) -> None:
    hidden = next(array.shape[1] for key, array in arrays.items() if key.part == "weight_hh" and array.ndim == 2)
    rows = len(ORDER[kind]) * hidden
    inner = next(a for k, a in arrays.items() if (k.part, k.layer, k.reverse) == ("weight_ih", 0, False))
    width = inner.shape[-1] if inner.ndim else 0
    for key, array in arrays.items():
        columns = {"weight_hh": (hidden,), "weight_ih": (directions * hidden if key.layer else width,)}.get(
            key.part, ()
        )
        if array.shape != (rows, *columns) or not array.size:
            reason = f"{quote(_name(key))} has the shape {list(array.shape)}, not {[rows, *columns]}"
            raise _refusal(reason, subject, f"Save the state dict of one nn.{kind}")


def _weights(
    arrays: Mapping[Key, Array], kind: oracle.Kind, prefix: str, layer: int, reverse: Sequence[bool]
) -> oracle.Weights:
    """Join the directions of a layer, with gates in the order of ONNX."""

    def ordered(part: str, back: bool) -> Array:
        array = arrays[Key(prefix, part, layer, back)]
        gates = array.reshape(len(ORDER[kind]), -1, *array.shape[1:])
        return gates[list(ORDER[kind])].reshape(array.shape)

    w, r = (np.stack([ordered(part, back) for back in reverse]) for part in ("weight_ih", "weight_hh"))
    if Key(prefix, "bias_ih", layer, False) not in arrays:
        return oracle.Weights(w, r)
    biases = [np.concatenate([ordered("bias_ih", back), ordered("bias_hh", back)]) for back in reverse]
    return oracle.Weights(w, r, np.stack(biases))


def _refusal(reason: str, subject: str, remedy: str) -> InputRefusedError:
    return InputRefusedError(reason, subject=subject, remedy=remedy)
