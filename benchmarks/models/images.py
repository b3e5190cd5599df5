"""Small grey images of ten classes, cut into training, validation and test: textures made here, digits, and MNIST.

Images are bytes (N, H, W), labels are bytes (N,). No image is in two parts.
"""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

CLASSES = 10
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

JITTER, NOISE = 0.1, 1.1
"""How much the angle (radians) of a texture varies, and the deviation of its noise; the texture's amplitude is 1."""


@dataclass(frozen=True)
class Part:
    """Images (N, H, W) and their labels (N,)."""

    images: Bytes
    labels: Bytes


@dataclass(frozen=True)
class Images:
    """A data set: to train on, to choose by, and to report."""

    train: Part
    validation: Part
    test: Part


def inputs(images: Bytes) -> Floats:
    """Return what the networks take: floats (N, 1, H, W) between -1 and 1."""
    return (images[:, None].astype(np.float32) - 127.5) / 127.5


def textures(count: int = 10_000, pixels: int = 16, seed: int = 0) -> Images:
    """Draw gratings and checks of five orientations each, at random places, with noise.

    A grating is a wave; a check is the product of two that are perpendicular.
    """
    generator = np.random.default_rng(seed)
    labels = generator.permutation(count) % CLASSES
    grating, orientation = labels % 2 == 0, labels // 2
    # A check is the same again after a quarter of a turn.
    turn = np.where(grating, math.pi, math.pi / 2)
    angles = turn * orientation / (CLASSES // 2) + generator.normal(0, JITTER, count)
    frequencies = generator.uniform(1.2, 1.8, count)
    along = _waves(generator, angles, frequencies, pixels)
    across = _waves(generator, angles + math.pi / 2, frequencies, pixels)
    patterns = np.where(grating[:, None, None], along, math.sqrt(2) * along * across)
    noisy = patterns + generator.normal(0, NOISE, patterns.shape)
    return split(np.clip(127.5 + 50 * noisy, 0, 255).astype(np.uint8), labels.astype(np.uint8), seed)


def _waves(
    generator: np.random.Generator, angles: NDArray[np.float64], frequencies: NDArray[np.float64], pixels: int
) -> NDArray[np.float64]:
    """Return one wave (N, H, W) an angle, of random phase."""
    rows, columns = np.meshgrid(np.arange(pixels), np.arange(pixels), indexing="ij")
    place = np.cos(angles)[:, None, None] * columns + np.sin(angles)[:, None, None] * rows
    phases = generator.uniform(0, 2 * math.pi, (len(angles), 1, 1))
    return np.cos(frequencies[:, None, None] * place + phases)


def mnist(folder: Path, pixels: int = 16, seed: int = 0) -> Images:
    """Read the 10,000 test images of MNIST (LeCun et al. 1998) and resize them; `folder` has the idx files."""
    images = _read_idx(folder / "t10k-images-idx3-ubyte.gz")
    labels = _read_idx(folder / "t10k-labels-idx1-ubyte.gz")
    return split(_resized(images, pixels), labels, seed)


def digits(pixels: int = 16, seed: int = 0) -> Images:
    """Return the 1,797 handwritten digits of scikit-learn (8 x 8, Alpaydin and Kaynak 1998), resized."""
    found = load_digits()
    images = np.rint(found.images * (255 / 16)).astype(np.uint8)
    return split(_resized(images, pixels), found.target, seed)


def _read_idx(path: Path) -> Bytes:
    """Read an array of bytes in the idx format: two zeros, type 8, rank, big-endian sizes, elements."""
    content = gzip.decompress(path.read_bytes())
    rank = content[3]
    shape = np.frombuffer(content, ">u4", rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _resized(images: Bytes, pixels: int) -> Bytes:
    """Return images (N, pixels, pixels), smoothed before they are sampled."""
    wide = torch.from_numpy(images.astype(np.float32))[:, None]
    scaled = torch.nn.functional.interpolate(wide, size=(pixels, pixels), mode="bilinear", antialias=True)
    return scaled[:, 0].round().clamp(0, 255).to(torch.uint8).numpy()


def split(images: Bytes, labels: Bytes, seed: int) -> Images:
    """Shuffle and cut into three fifths, one fifth and one fifth."""
    order = np.random.default_rng(seed).permutation(len(images))
    cuts = (3 * len(order) // 5, 4 * len(order) // 5)
    return Images(*(Part(images[part], labels[part]) for part in np.split(order, cuts)))
