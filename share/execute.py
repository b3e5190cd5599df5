"""Open a model in our session or in stock onnxruntime, and run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from sartor.share.errors import InputRefusedError, UsageError

if TYPE_CHECKING:
    import onnxruntime

    from sartor.share.artifact import Model
    from sartor.share.inputs import Arrays
    from sartor.share.runtime.device_session import DeviceSession

    Session: TypeAlias = onnxruntime.InferenceSession | DeviceSession

Runtime = Literal["sartor", "onnxruntime"]


def open_session(model: Model, runtime: Runtime, threads: int, device: str = "cpu", pack: str | None = None) -> Session:
    """Return a session with all optimisations; raises InputRefusedError for what the runtime does not take.

    `threads` are those of the CPU, `pack` is a file of packed weights. Raises UsageError and UnavailableError for a
    device that it does not run on.
    """
    if pack is not None and (runtime == "onnxruntime" or device != "cpu"):
        raise UsageError("packed weights are for sartor's session on the CPU", subject=f"--pack {pack}")
    if runtime == "onnxruntime":
        if device != "cpu":
            raise UsageError("onnxruntime runs on the CPU only", subject=f"device {device}", remedy="Use --device cpu")
        return _open_stock(model, threads)
    from sartor.share.runtime import load

    if device != "cpu":
        return load(model.path or model.ir, device)
    return load(model.path or model.ir, threads=threads, session_options=_settle, pack=pack)


def run_session(session: Session, inputs: Arrays, subject: str) -> list[Any]:
    """Return all outputs in order; raises UsageError with the runtime's reason when the inputs do not suit."""
    try:
        return list(session.run(None, inputs))
    # The exceptions of onnxruntime have no base class of their own.
    except Exception as error:
        reason = f"the model can't run with these inputs: {_first_line(error)}"
        remedy = "Give other sizes by --shape or other inputs by --input"
        raise UsageError(reason, subject=subject, remedy=remedy) from error


def output_names(session: Session) -> list[str]:
    """Return the names of the outputs in order."""
    return [output.name for output in session.get_outputs()]


def _open_stock(model: Model, threads: int) -> onnxruntime.InferenceSession:
    import onnx_ir as ir
    import onnxruntime

    from sartor.share.runtime import stock_options

    content = str(model.path) if model.path else ir.serde.serialize_model(model.ir).SerializeToString()
    options = stock_options(threads, _settle)
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    # The exceptions of onnxruntime have no base class of their own.
    except Exception as error:
        reason = f"onnxruntime does not load it: {_first_line(error)}"
        raise InputRefusedError(reason, subject=model.source, remedy="Check the model with onnx.checker") from error


def _settle(options: onnxruntime.SessionOptions) -> None:
    """Let no thread spin between runs, where it would take time from another session."""
    options.add_session_config_entry("session.force_spinning_stop", "1")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")
