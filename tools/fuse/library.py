"""The library of a fused model: its kernels compiled ahead, for programs with stock onnxruntime and without sartor."""

from __future__ import annotations

from sartor.share import console
from sartor.share.artifact import Model, write_bytes
from sartor.share.errors import UnavailableError
from sartor.share.runtime.ahead import build_library, objects_of, required_features
from sartor.share.runtime.select import select_kernels


def emit_library(model: Model, target: str) -> None:
    """Write the kernels that a session of a fused model runs as a shared library, and say for which processor.

    Raises UnavailableError without a C compiler, OutputError, WriteError, and UsageError for a terminal.
    """
    kernels = select_kernels(model.ir)
    try:
        write_bytes(build_library(kernels), target)
    except UnavailableError as error:
        raise UnavailableError(error.reason, subject=error.subject or target, remedy=error.remedy) from error
    objects = objects_of(kernels)
    if not objects:
        console.warn(f"{target}: no group has a kernel, so the library is empty")
        return
    needed = " ".join(required_features(objects)) or "no extension of its instructions"
    console.note(f"{target}: {len(objects)} kernels for {objects[0].processor} and other processors with {needed}")
