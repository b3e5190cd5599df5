"""What a run writes down: a line of JSON an event, and on request events for TensorBoard and lines of MLPerf."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from sartor.share.artifact import write_bytes
from sartor.share.console import detail

FILE, MLPERF_FILE, TENSORBOARD_FOLDER = "metrics.jsonl", "mlperf.log", "tensorboard"


class Sink(Protocol):
    """Takes down what happens; `numbers` may be nested once."""

    def event(self, kind: str, step: int, numbers: Mapping[str, Any]) -> None:
        """Take down an event of a kind, `step` or `evaluation`."""


@contextmanager
def open_log(folder: Path, step: int, mlperf: bool) -> Iterator[Sink]:
    """Yield what takes down events after a step in a run's folder; what an earlier try wrote of later steps goes."""
    with ExitStack() as stack:
        sinks: list[Sink] = [stack.enter_context(_lines(folder / FILE, step))]
        writer = _tensorboard(folder / TENSORBOARD_FOLDER, step)
        if writer is not None:
            stack.callback(writer.close)
            sinks.append(_Board(writer))
        if mlperf:
            sinks.append(stack.enter_context(_mlperf(folder / MLPERF_FILE)))
        yield _All(sinks)


class _All:
    def __init__(self, sinks: list[Sink]) -> None:
        self._sinks = sinks

    def event(self, kind: str, step: int, numbers: Mapping[str, Any]) -> None:
        for sink in self._sinks:
            sink.event(kind, step, numbers)


class _Lines:
    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def event(self, kind: str, step: int, numbers: Mapping[str, Any]) -> None:
        self._file.write(json.dumps({"event": kind, "step": step, **numbers}) + "\n")
        self._file.flush()


@contextmanager
def _lines(path: Path, step: int) -> Iterator[_Lines]:
    write_bytes(b"".join(_lines_upto(path, step)), path)
    with path.open("a", encoding="utf-8") as file:
        yield _Lines(file)


def _lines_upto(path: Path, step: int) -> Iterator[bytes]:
    """Yield the whole lines of a file, if there is one, up to a step: a run that was killed may have gone further."""
    if not path.exists():
        return
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n") or json.loads(line)["step"] > step:
            return
        yield line


class _Board:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def event(self, kind: str, step: int, numbers: Mapping[str, Any]) -> None:
        for name, value in numbers.items():
            if isinstance(value, Mapping):
                self.event(f"{kind}/{name}", step, value)
            elif isinstance(value, int | float):
                self._writer.add_scalar(f"{kind}/{name}", value, step)


def _tensorboard(folder: Path, step: int) -> Any:
    """Return a writer for TensorBoard that takes back later steps, None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        detail("TensorBoard is not installed: no events for it")
        return None
    return SummaryWriter(folder, purge_step=step + 1)


class _Mlperf:
    """Lines as MLPerf's logging library writes them, of which the compliance checker of MLPerf HPC 3.0 reads these."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def event(self, kind: str, step: int, numbers: Mapping[str, Any]) -> None:
        if kind == "evaluation":
            self.point("eval_accuracy", numbers["lddt_ca"], step)
        else:
            self.point("tracked_stats", {"train_loss": numbers["loss"], "learning_rate": numbers["rate"]}, step)

    def point(self, key: str, value: Any, step: int | None = None, kind: str = "POINT_IN_TIME") -> None:
        """Write one line; where it was called from goes with it."""
        frame = sys._getframe(1)
        metadata = {"file": Path(frame.f_code.co_filename).name, "lineno": frame.f_lineno}
        if step is not None:
            metadata["step_num"] = step
        entry = {
            "namespace": "",
            "time_ms": int(time.time() * 1000),
            "event_type": kind,
            "key": key,
            "value": value,
            "metadata": metadata,
        }
        self._file.write(f":::MLLOG {json.dumps(entry)}\n")
        self._file.flush()


@contextmanager
def _mlperf(path: Path) -> Iterator[_Mlperf]:
    with path.open("a", encoding="utf-8") as file:
        log = _Mlperf(file)
        log.point("submission_benchmark", "openfold")
        log.point("run_start", None, kind="INTERVAL_START")
        done = "aborted"
        try:
            yield log
            done = "success"
        finally:
            log.point("run_stop", {"status": done}, kind="INTERVAL_END")
