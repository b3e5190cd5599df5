"""Training of a small classifier on the processor, the same every time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from models.images import Images, Part, inputs

BATCH = 128
RATE, MOMENTUM, DECAY = 0.1, 0.9, 5e-4


def train(network: nn.Module, data: Images, epochs: int, seed: int, threads: int = 1) -> float:
    """Train a network in place by SGD, leave it in evaluation mode, and return its accuracy on the validation part.

    Momentum, decay and rate are near those of He et al. 2016, section 4.2. Equal arguments give equal weights. One
    thread is the default, because the images are too small for two: these were five times slower on two shared cores.
    """
    images, labels = tensors(data.train)
    # Depthwise convolutions are twice as fast with channels last.
    network.to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * -(-len(images) // BATCH)
    optimizer = torch.optim.SGD(network.parameters(), RATE, MOMENTUM, weight_decay=DECAY, nesterov=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_share(step, steps))
    network.train()
    with reproducible(threads):
        for _ in range(epochs):
            for batch in torch.randperm(len(images), generator=generator).split(BATCH):
                loss = nn.functional.cross_entropy(network(images[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    network.eval().to(memory_format=torch.contiguous_format)
    return accuracy(network, data.validation)


def rate_share(step: int, steps: int) -> float:
    """Return the share of the rate: along half a cosine (Loshchilov and Hutter 2017, equation 5) after a short rise."""
    return min(1.0, (step + 1) / (0.1 * steps)) * (1 + math.cos(math.pi * step / steps)) / 2


def accuracy(network: nn.Module, part: Part) -> float:
    """Return the share of images that a network in evaluation mode classifies right."""
    images, labels = tensors(part)
    with torch.no_grad():
        right = [network(batch).argmax(1) for batch in images.split(500)]
    return float((torch.cat(right) == labels).float().mean())


def tensors(part: Part) -> tuple[Tensor, Tensor]:
    """Return the images as the networks take them (N, 1, H, W), and the labels (N,) as indices."""
    return torch.from_numpy(inputs(part.images)), torch.from_numpy(part.labels.astype("int64"))


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Let torch use a number of threads and only algorithms that give the same bits every time."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
