"""Open a model as a stock onnxruntime session in which our kernels run the functions that have some."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, overload

import onnx_ir as ir

from sartor.share import device as devices
from sartor.share.artifact import read_model
from sartor.share.errors import InputRefusedError, UsageError
from sartor.share.packs import Packs, read_packs
from sartor.share.runtime import library
from sartor.share.runtime.kernel import Kernel
from sartor.share.runtime.memory import model_of_bytes, serialized
from sartor.share.runtime.operators import Registration, register_operators
from sartor.share.runtime.segments import SegmentedSession, open_segments
from sartor.share.runtime.select import select_kernels
from sartor.share.threads import default_threads

if TYPE_CHECKING:
    import onnxruntime

    from sartor.share.runtime.device_session import DeviceSession

Source = str | os.PathLike[str] | bytes | ir.Model
"""A path, `-` for standard input, the bytes of a model, or a model in memory."""

OptionsHook = Callable[["onnxruntime.SessionOptions"], None]
"""What a caller does to the options before the session is made: profiling, writing the optimised model."""

_ATTRIBUTE = "_sartor_registration"


@dataclass(frozen=True)
class _Input:
    """A model with the form in which onnxruntime takes it, and what to call it in a message."""

    model: ir.Model
    content: str | bytes
    folder: Path | None
    subject: str


@overload
def load(
    source: Source,
    device: Literal["cpu"] = "cpu",
    threads: int | None = None,
    *,
    session_options: OptionsHook | None = None,
    skip: frozenset[str] = frozenset(),
    pack: str | os.PathLike[str] | None = None,
) -> onnxruntime.InferenceSession: ...


@overload
def load(source: Source, device: str, *, skip: frozenset[str] = frozenset()) -> DeviceSession: ...


def load(
    source: Source,
    device: str = "cpu",
    threads: int | None = None,
    *,
    session_options: OptionsHook | None = None,
    skip: frozenset[str] = frozenset(),
    pack: str | os.PathLike[str] | None = None,
) -> onnxruntime.InferenceSession | DeviceSession:
    """Return a session in which our kernels run the functions that have some.

    On the CPU it is one of onnxruntime; where the custom-op library is missing it is an object with the same interface
    (segments.py). On `cuda` or `cuda:N` it is a session of torch with that interface (device_session.py), which has no
    use for threads and options. Functions named in `skip` run their bodies. `pack` is a file of packed weights that
    saves packing them here; what is not for this model and processor is left aside with a warning. Raises
    InputRefusedError, UnavailableError, UsageError.
    """
    devices.require(device)
    if device != "cpu":
        from sartor.share.runtime.device_session import open_device_session

        if threads is not None or session_options is not None or pack is not None:
            raise UsageError("threads, session options and packs are those of the CPU", subject=f"device {device}")
        return open_device_session(_open(source).model, device, skip)
    count = default_threads() if threads is None else threads
    if count < 1:
        raise UsageError("must be at least 1", subject=f"threads {count}")
    opened = _open(source)
    packs = None if pack is None else _packs_of(opened.model, pack)
    kernels = select_kernels(opened.model, skip, packs)
    path = library.library_path() if kernels else None
    if path is not None:
        return _with_library(opened, path, kernels, count, session_options)
    if kernels:
        return _with_segments(opened, kernels, count, session_options)
    return _stock(opened, stock_options(count, session_options))


def _packs_of(model: ir.Model, path: str | os.PathLike[str]) -> Packs | None:
    """Read a file of packed weights; None, with a warning, where it is that of another model altogether."""
    packs = read_packs(os.fspath(path))
    if packs.entries.keys() & {function.name for function in model.functions.values()}:
        return packs
    warnings.warn(f"{packs.subject}: it is left aside, nothing in it is of this model", RuntimeWarning, stacklevel=3)
    return None


def kernels_of(session: onnxruntime.InferenceSession) -> tuple[Kernel, ...]:
    """Return the kernels that a session on the CPU runs; one of torch has them itself."""
    if isinstance(session, SegmentedSession):
        return session.kernels
    registration: Registration | None = getattr(session, _ATTRIBUTE, None)
    return () if registration is None else registration.kernels


def stock_options(threads: int, hook: OptionsHook | None = None) -> onnxruntime.SessionOptions:
    """Return the options of all our sessions: every optimisation, one pool of this many threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # What goes wrong is raised; the log would say it a second time.
    options.log_severity_level = 4
    if hook is not None:
        hook(options)
    return options


def _open(source: Source) -> _Input:
    """Read a model's structure; the weights of a file stay in it."""
    if isinstance(source, bytes):
        return _Input(model_of_bytes(source), source, None, "model")
    if isinstance(source, ir.Model):
        return _in_memory(source, source.graph.name or "model")
    read = read_model(os.fspath(source))
    if read.path is None:
        return _in_memory(read.ir, read.source)
    return _Input(read.ir, str(read.path), None, read.source)


def _in_memory(model: ir.Model, subject: str) -> _Input:
    """Serialize a model for onnxruntime."""
    content, folder = serialized(model)
    return _Input(model, content, folder, subject)


def _with_library(
    opened: _Input, path: Path, kernels: tuple[Kernel, ...], threads: int, hook: OptionsHook | None
) -> onnxruntime.InferenceSession:
    """Open a session with the kernels registered, or without them if onnxruntime refuses them."""
    options = stock_options(threads, hook)
    try:
        registration = register_operators(options, path, kernels, threads)
        session = _create(opened, options)
    except Exception as error:
        warnings.warn(f"{opened.subject}: runs without kernels ({first_line(error)})", RuntimeWarning, stacklevel=3)
        return _stock(opened, stock_options(threads, hook))
    setattr(session, _ATTRIBUTE, registration)
    return session


def _with_segments(
    opened: _Input, kernels: tuple[Kernel, ...], threads: int, hook: OptionsHook | None
) -> onnxruntime.InferenceSession:
    """Open a session cut into segments, or a stock one where the model can't be cut."""

    def make(part: ir.Model) -> onnxruntime.InferenceSession:
        options = stock_options(threads, hook)
        # A pool for each segment: none may keep a core busy while another works.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return _stock(_in_memory(part, opened.subject), options)

    segmented = open_segments(opened.model, kernels, make, threads)
    if segmented is None:
        return _stock(opened, stock_options(threads, hook))
    return cast("onnxruntime.InferenceSession", segmented)


def _stock(opened: _Input, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """Open a session; raises InputRefusedError where onnxruntime refuses the model."""
    try:
        return _create(opened, options)
    except Exception as error:
        raise InputRefusedError(f"onnxruntime refuses it ({first_line(error)})", subject=opened.subject) from error


def _create(opened: _Input, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """Create the session; raises what onnxruntime does."""
    import onnxruntime

    if opened.folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(opened.folder))
    # Without the fallback of the Python wrapper, which prints to stdout and tries the same thing again.
    return onnxruntime.InferenceSession(
        opened.content, options, providers=["CPUExecutionProvider"], enable_fallback=False
    )


def first_line(error: Exception) -> str:
    """Return the first line of a message of onnxruntime, without its marks."""
    text = str(error).strip().splitlines() or [type(error).__name__]
    return text[0].removeprefix("[ONNXRuntimeError] : ").rstrip(". ")
