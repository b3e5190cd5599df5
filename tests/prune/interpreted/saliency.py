"""Sums of weights by Triton are those of the definition, however many tensors there are."""

from __future__ import annotations

import numpy as np
import torch
from tests.prune.test_kernels_saliency import SHAPES, drawn

from sartor.tools.prune.kernels.saliency import channel_sums_reference
from sartor.tools.prune.kernels.saliency_triton import gpu_channel_sums


def test_all_tensors_in_one_launch() -> None:
    parts = [drawn(shape, axis) for shape in SHAPES for axis in range(len(shape))]
    weights = [torch.from_numpy(part.weight) for part in parts]
    found = gpu_channel_sums(weights, [part.axis for part in parts])
    for part, sums in zip(parts, found, strict=True):
        for actual, expected in zip(sums, channel_sums_reference(part), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=2e-6)
