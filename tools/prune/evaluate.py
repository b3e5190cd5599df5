"""How good a model is on a split: runs of stock onnxruntime, and metrics of which more is better."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from sartor.share.data import Split
from sartor.share.errors import InputRefusedError, UsageError
from sartor.share.quality import likeness
from sartor.share.runtime import stock_options

Arrays = dict[str, NDArray[Any]]
BATCH = 64
"""Samples of a run: few enough for caches, and always as many, so that threads change nothing."""


@dataclass(frozen=True)
class Metric:
    """What is measured: the share of samples whose label is among the `top` best classes, or likeness without labels.

    Likeness is 1 - |y - y0|^2 / |y0 - mean|^2, where y0 is what the original model gives: 1 for the same outputs.
    """

    name: str
    top: int = 0

    @property
    def labelled(self) -> bool:
        """Tell whether labels are needed."""
        return self.top > 0


def parse_metric(text: str | None, labelled: bool) -> Metric:
    """Return a metric by its name, the accuracy by default where there are labels; raises UsageError for others."""
    name = text or ("accuracy" if labelled else "likeness")
    if name == "likeness":
        return Metric(name)
    if name == "accuracy":
        return Metric(name, 1)
    if name.startswith("top") and name[3:].isdigit() and int(name[3:]) > 0:
        return Metric(name, int(name[3:]))
    raise UsageError(
        f"there is no metric {name!r}", subject="--metric", remedy="Take accuracy, top5 (any number) or likeness"
    )


class Runner:
    """A session of stock onnxruntime on one model; `fetch` names further values to return."""

    def __init__(self, model: ir.Model, threads: int = 1, fetch: Sequence[str] = ()) -> None:
        import onnxruntime

        self.names = [str(value.name) for value in model.graph.outputs]
        if fetch:
            model = with_outputs(model, fetch)
            self.names = list(fetch)
        content = ir.serde.serialize_model(model).SerializeToString()
        options = stock_options(threads)
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def batches(self, inputs: Arrays, size: int = BATCH) -> Iterator[Arrays]:
        """Run samples in batches and yield what is fetched, by name."""
        return (self._run(inputs, begin, size) for begin in range(0, samples_of(inputs), size))

    def outputs(self, inputs: Arrays, workers: int = 1) -> Arrays:
        """Run samples, so many batches at a time, and return what is fetched, whole."""
        with ThreadPoolExecutor(workers) as pool:
            parts = list(pool.map(lambda begin: self._run(inputs, begin, BATCH), range(0, samples_of(inputs), BATCH)))
        return {name: np.concatenate([part[name] for part in parts]) for name in self.names}

    def _run(self, inputs: Arrays, begin: int, size: int) -> Arrays:
        feed = {name: array[begin : begin + size] for name, array in inputs.items()}
        return dict(zip(self.names, self._session.run(self.names, feed), strict=True))


def samples_of(inputs: Arrays) -> int:
    """Return the number of samples."""
    return len(next(iter(inputs.values())))


@dataclass(frozen=True)
class Judge:
    """Scores models on a split by so many workers; `wanted` is what the original gives there."""

    metric: Metric
    split: Split
    wanted: Arrays
    workers: int = 1

    def score(self, model: ir.Model) -> float:
        """Run a model on the split and return the metric."""
        return self.score_outputs(Runner(model).outputs(self.split.inputs, self.workers))

    def score_outputs(self, outputs: Arrays) -> float:
        """Return the metric of what a model gave on the split."""
        if not self.metric.labelled:
            return likeness(outputs, self.wanted)
        return float(np.mean([_within(outputs[name], y, self.metric.top) for name, y in self.split.labels.items()]))


def make_judge(model: ir.Model, split: Split, metric: Metric, workers: int, subject: str) -> Judge:
    """Prepare a judge; raises InputRefusedError where labels are missing or are no classes of the model."""
    wanted = Runner(model).outputs(split.inputs, workers)
    if metric.labelled:
        if not split.labels:
            raise InputRefusedError("it has no labels y", subject=subject, remedy="Add them, or use --metric likeness")
        for name, labels in split.labels.items():
            classes = wanted[name].shape[1] if wanted[name].ndim > 1 else 0
            if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes:
                reason = f"labels of {name!r} are not numbers from 0 to {classes - 1}"
                raise InputRefusedError(reason, subject=subject, remedy="Store the number of the class")
    return Judge(metric, split, wanted, workers)


def _within(outputs: NDArray[Any], labels: NDArray[Any], top: int) -> float:
    """Return the share of samples (further axes of outputs are positions) whose label is among the best classes."""
    scores = np.moveaxis(outputs, 1, -1)
    mine = np.take_along_axis(scores, labels[..., None].astype(np.int64), -1)
    # Equal scores count against the label, so that a constant output is no hit; NaN never hits.
    ahead = (scores >= mine).sum(-1) - 1
    return float(np.mean((ahead < top) & np.isfinite(mine[..., 0])))


def with_outputs(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """Return a copy of a model that returns the named values instead of its outputs, and computes no more than them."""
    copy = model.clone()
    values = {str(out.name): out for node in copy.graph for out in node.outputs}
    values |= {str(value.name): value for value in copy.graph.inputs}
    copy.graph.outputs[:] = [values[name] for name in names]
    RemoveUnusedNodesPass()(copy)
    return copy
