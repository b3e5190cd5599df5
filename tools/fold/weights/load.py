"""Reading weights from any of the files that people have into a model.

safetensors and PyTorch archives hold OpenFold's names, today's or those of its first version, perhaps inside a
checkpoint of Lightning; `.npz` holds AlphaFold's. Nothing that could run code is loaded.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sartor.share.artifact import Kind, identify, read_safetensors_header
from sartor.share.artifact.contents import quote
from sartor.share.artifact.sniff import unreadable
from sartor.share.errors import InputRefusedError
from sartor.tools.fold.weights.alphafold_names import place_of

TM_HEAD = "aux_heads.tm."
_TEMPLATES = "template_embedder."
_MOST_NAMED = 3

# OpenFold's names before its second version.
_RENAMED = (
    (re.compile(r"^template_angle_embedder\."), "template_embedder.template_single_embedder."),
    (re.compile(r"^template_(pair_embedder|pair_stack|pointwise_att)\."), r"template_embedder.template_\1."),
    (re.compile(r"^extra_msa_stack\.stack\."), "extra_msa_stack."),
    (re.compile(r"\.core\.(msa_transition|outer_product_mean)\."), r".\1."),
    (re.compile(r"\.core\."), ".pair_stack."),
    (re.compile(r"^((?:evoformer|extra_msa_stack)\.blocks\.\d+)\.(tri_|pair_transition)"), r"\1.pair_stack.\2"),
)


def load_weights(model: nn.Module, path: str | Path, new: Sequence[str] = (), average: bool = True) -> None:
    """Fill a model from a file; tensors whose names begin with one of `new` may be absent and keep their values.

    A Lightning checkpoint's moving average is taken where there is one, unless `average` is false. Raises
    InputRefusedError that names the file, the tensor and the remedy.
    """
    subject = str(path)
    state = model.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if identify(path) is Kind.NPZ:
        tensors = _from_arrays(_read_npz(Path(path)), shapes, new, subject)
    else:
        tensors = _plain_names(_read_tensors(Path(path), average))
    _check_names(tensors, shapes, new, subject)
    _check_shapes(tensors, shapes, subject)
    model.load_state_dict({**state, **tensors})


def _read_tensors(path: Path, average: bool) -> Mapping[str, Any]:
    kind, subject = identify(path), str(path)
    if kind is Kind.SAFETENSORS:
        from safetensors.torch import load_file

        read_safetensors_header(path)
        return load_file(path)
    if kind is not Kind.TORCH:
        remedy = "Name a .safetensors, .pt, .ckpt or params_*.npz file"
        raise _refusal(f"this is {kind.value}, not a file of weights", subject, remedy)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise unreadable(path, error) from error
    # A damaged archive raises whatever its bytes lead to; one with code an UnpicklingError.
    except Exception as error:
        reason = f"the archive is damaged or holds more than tensors ({type(error).__name__})"
        raise _refusal(reason, subject, "Save model.state_dict() alone with torch.save") from error
    return _unwrap(content, average, subject)


def _unwrap(content: Any, average: bool, subject: str) -> Mapping[str, Any]:
    """Take the state dict out of a checkpoint."""
    if isinstance(content, dict) and average and isinstance(content.get("ema"), dict):
        content = content["ema"].get("params", content["ema"])
    elif isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not any(isinstance(value, Tensor) for value in content.values()):
        raise _refusal("the archive holds no state dict", subject, "Save model.state_dict() with torch.save")
    return content


def _plain_names(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return tensors under the names of today's OpenFold, without the prefixes of wrappers."""
    plain = {}
    for name, tensor in tensors.items():
        name = re.sub(r"^(?:module\.)?(?:model\.)?", "", str(name))
        for pattern, replacement in _RENAMED:
            name = pattern.sub(replacement, name)
        plain[name] = tensor
    return plain


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = f"the arrays can't be read ({type(error).__name__})"
        raise _refusal(reason, str(path), "Download the parameters again") from error


def _from_arrays(
    arrays: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]], new: Sequence[str], subject: str
) -> dict[str, Tensor]:
    """Return AlphaFold's arrays as tensors of a state dict."""
    tensors, used = {}, set()
    for name, shape in shapes.items():
        place = place_of(name)
        if place.array in arrays:
            used.add(place.array)
            tensors[name] = _tensor(arrays[place.array], place.block, shape, f"{subject}: {quote(place.array)}")
        elif not name.startswith(tuple(new)):
            raise _missing([place.array], [name], subject)
    left = sorted(set(arrays) - used)
    if left:
        raise _unexpected(left, subject)
    return tensors


def _tensor(array: NDArray[Any], block: int | None, shape: tuple[int, ...], subject: str) -> Tensor:
    """Return an array as a tensor of this shape: weights are transposed, and heads joined to one dimension."""
    if block is not None:
        if block >= array.shape[0]:
            raise _refusal(f"it has {array.shape[0]} blocks, not {block + 1}", subject, _OTHER_CONFIGURATION)
        array = array[block]
    fits = array.size == math.prod(shape)
    if len(shape) == 2:
        fits = fits and array.ndim >= 2 and (array.shape[0] == shape[1] or array.shape[-1] == shape[0])
    if not fits:
        raise _refusal(f"its shape {list(array.shape)} does not give {list(shape)}", subject, _OTHER_CONFIGURATION)
    return torch.from_numpy(np.ascontiguousarray(array.reshape(shape[::-1]).T))


_OTHER_CONFIGURATION = "Use the configuration that the weights were trained with"


def _check_names(
    tensors: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], new: Sequence[str], subject: str
) -> None:
    missing = [name for name in shapes if name not in tensors and not name.startswith(tuple(new))]
    if missing:
        raise _missing(missing, missing, subject)
    unexpected = [name for name in tensors if name not in shapes]
    if unexpected:
        raise _unexpected(unexpected, subject)


def _check_shapes(tensors: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], subject: str) -> None:
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            what = str(tensor.dtype) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise _refusal(f"{quote(name)} is {what}, not a tensor of floats", subject, "Save the state dict again")
        if tuple(tensor.shape) != shapes[name]:
            reason = f"{quote(name)} has the shape {list(tensor.shape)}, not {list(shapes[name])}"
            raise _refusal(reason, subject, _OTHER_CONFIGURATION)


def _missing(shown: Sequence[str], names: Sequence[str], subject: str) -> InputRefusedError:
    remedy = _OTHER_CONFIGURATION
    if all(name.startswith(_TEMPLATES) for name in names):
        remedy = "Set templates = false, as these weights use none"
    elif all(name.startswith(TM_HEAD) for name in names):
        remedy = "Set heads.tm = false, or let this head start anew"
    return _refusal(f"it lacks {_listed(shown)}", subject, remedy)


def _unexpected(names: Sequence[str], subject: str) -> InputRefusedError:
    remedy = _OTHER_CONFIGURATION
    if all("predicted_aligned_error" in name or name.startswith(TM_HEAD) for name in names):
        remedy = "Set heads.tm = true"
    elif all("template" in name for name in names):
        remedy = "Set templates = true"
    return _refusal(f"it has {_listed(names)}, which the model has not", subject, remedy)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(quote(name) for name in names[:_MOST_NAMED])
    return shown if len(names) <= _MOST_NAMED else f"{shown} and {len(names) - _MOST_NAMED} more"


def _refusal(reason: str, subject: str, remedy: str) -> InputRefusedError:
    return InputRefusedError(reason, subject=subject, remedy=remedy)
