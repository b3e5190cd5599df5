"""Where layers are calibrated: by onnxruntime and numpy on the CPU, or by torch and Triton on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
from threadpoolctl import threadpool_limits

from sartor.tools.prune.evaluate import Arrays, Runner, samples_of, with_outputs
from sartor.tools.prune.kernels import cross, moments, saliency
from sartor.tools.prune.kernels.cross import Cross
from sartor.tools.prune.kernels.moments import Moments, rounded_shift
from sartor.tools.prune.kernels.saliency import Part, Saliency
from sartor.tools.prune.kernels.window import Array, Window


class Place(Protocol):
    """Runs a model and sums up what its layers read; maps and targets are arrays or tensors of the place."""

    def batches(self, model: ir.Model, names: Sequence[str], inputs: Arrays, size: int) -> Iterator[dict[str, Any]]:
        """Run samples in batches of a size and yield the named values."""

    def mean(self, x: Any) -> Array:
        """Return the mean of each channel (axis 1), float64."""

    def each(self, task: Callable[[int], None], count: int) -> None:
        """Do numbered tasks, as many at a time as there are threads; what one does depends on no other."""

    def moments(self, x: Any, window: Window, shift: Array) -> Moments:
        """Sum over the rows of the design matrix of a map [N, C, *spatial]."""

    def cross(self, x: Any, y: Any, window: Window, shift: Array, target_shift: Array) -> Cross:
        """Sum over the rows of the design matrix of a map and a target [N, G O, *output]."""

    def saliency(self, parts: Sequence[Part], count: int) -> Saliency:
        """Sum the weights of so many classes."""


@dataclass(frozen=True)
class Processor:
    """The CPU."""

    threads: int = 1

    def batches(self, model: ir.Model, names: Sequence[str], inputs: Arrays, size: int) -> Iterator[dict[str, Any]]:
        """Run samples in onnxruntime."""
        return Runner(model, self.threads, names).batches(inputs, size)

    def mean(self, x: Any) -> Array:
        """Return the mean of each channel."""
        return np.asarray(x.mean((0, *range(2, x.ndim)), dtype=np.float64))

    def each(self, task: Callable[[int], None], count: int) -> None:
        """Do tasks in threads of their own, each with one thread for products: sums do not depend on how many."""
        with threadpool_limits(1), ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(task, range(count)))

    def moments(self, x: Any, window: Window, shift: Array) -> Moments:
        """Sum by numpy."""
        return moments.moments(x, window, shift)

    def cross(self, x: Any, y: Any, window: Window, shift: Array, target_shift: Array) -> Cross:
        """Sum by numpy."""
        return cross.cross(x, y, window, shift, target_shift)

    def saliency(self, parts: Sequence[Part], count: int) -> Saliency:
        """Sum by numba."""
        return saliency.saliency(parts, count)


@dataclass(frozen=True)
class Graphics:
    """A GPU by its name in torch; "cpu" stands for one in Triton's interpreter."""

    device: str

    def batches(self, model: ir.Model, names: Sequence[str], inputs: Arrays, size: int) -> Iterator[dict[str, Any]]:
        """Run samples in torch."""
        import torch

        from sartor.share.lowering import lower

        lowered = lower(with_outputs(model, names)).to(self.device)
        for begin in range(0, samples_of(inputs), size):
            feed = {
                name: torch.from_numpy(array[begin : begin + size]).to(self.device) for name, array in inputs.items()
            }
            with torch.no_grad():
                yield lowered(**{name: tensor for name, tensor in feed.items() if name in lowered.input_names})

    def mean(self, x: Any) -> Array:
        """Return the mean of each channel."""
        return np.asarray(x.double().mean((0, *range(2, x.ndim))).cpu().numpy())

    def each(self, task: Callable[[int], None], count: int) -> None:
        """Do tasks one after the other: the GPU is busy with each."""
        for number in range(count):
            task(number)

    def moments(self, x: Any, window: Window, shift: Array) -> Moments:
        """Sum by Triton."""
        from sartor.tools.prune.kernels.moments_triton import gpu_moments

        return gpu_moments(x, window, shift)

    def cross(self, x: Any, y: Any, window: Window, shift: Array, target_shift: Array) -> Cross:
        """Sum by Triton."""
        from sartor.tools.prune.kernels.moments_triton import gpu_cross

        return gpu_cross(x, y, window, shift, target_shift)

    def saliency(self, parts: Sequence[Part], count: int) -> Saliency:
        """Sum by Triton."""
        import torch

        from sartor.tools.prune.kernels.saliency_triton import gpu_channel_sums

        weights = [torch.from_numpy(np.ascontiguousarray(part.weight)).to(self.device) for part in parts]
        found = Saliency(np.zeros(count), np.zeros(count))
        for part, sums in zip(parts, gpu_channel_sums(weights, [part.axis for part in parts]), strict=True):
            saliency.add_classes(found, part.classes, *sums)
        return found


def place_of(device: str, threads: int) -> Place:
    """Return the place of a device."""
    return Processor(threads) if device == "cpu" else Graphics(device)


def shift_of(place: Place, x: Any, window: Window) -> Array:
    """Choose the shift [C] of a layer's channels from its first batch; zero where most of what is read are zeros."""
    if window.transposed or not len(x):
        return np.zeros(x.shape[1], np.float32)
    return rounded_shift(place.mean(x))
