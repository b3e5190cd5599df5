"""The image classifiers of the benchmarks on pruning: their shapes, their data, and a short training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

NAMES = ("resnet20", "resnet20_wide", "resnet56", "resnet18", "mobilenet_v1")
LAYERS = {"resnet20": 19 + 2, "resnet20_wide": 19 + 2, "resnet56": 55 + 2, "resnet18": 17 + 3, "mobilenet_v1": 27}
"""The convolutions of each network; the shortcuts that are projected come on top."""
COUNT = 2000


def test_every_network_is_tested() -> None:
    from models.vision import NETWORKS

    assert tuple(NETWORKS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_network_has_the_layers_of_its_paper(name: str) -> None:
    from models.vision import make_network

    network = make_network(name, seed=0)
    assert sum(isinstance(part, torch.nn.Conv2d) for part in network.modules()) == LAYERS[name]
    assert all(network(torch.zeros(2, 1, pixels, pixels)).shape == (2, 10) for pixels in (16, 28))


@pytest.mark.parametrize("name", NAMES)
def test_weights_follow_from_the_seed(name: str) -> None:
    from models.vision import make_network

    first, again, other = (make_network(name, seed).head.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_width_scales_the_parameters() -> None:
    from models.vision import mobilenet_v1, resnet18, resnet_cifar

    def parameters(network: torch.nn.Module) -> int:
        return sum(weight.numel() for weight in network.parameters())

    # ResNet20 has 0.27 million (He et al. 2016, table 6); ResNet-18 11.7 and MobileNet 4.2, both for 1000 classes.
    assert parameters(resnet_cifar(20, 16)) == pytest.approx(0.27e6, rel=0.02)
    assert parameters(resnet18(64)) == pytest.approx(11.7e6 - 990 * 513, rel=0.01)
    assert parameters(mobilenet_v1(1.0)) == pytest.approx(4.2e6 - 990 * 1025, rel=0.01)
    assert parameters(resnet_cifar(20, 8)) == pytest.approx(parameters(resnet_cifar(20, 16)) / 4, rel=0.02)


def test_textures_are_the_same_every_time_and_balanced() -> None:
    from models.images import textures

    data, again, other = textures(COUNT), textures(COUNT), textures(COUNT, seed=1)
    for part, same in ((data.train, again.train), (data.validation, again.validation), (data.test, again.test)):
        assert np.array_equal(part.images, same.images)
        assert np.array_equal(part.labels, same.labels)
        assert part.images.dtype == part.labels.dtype == np.uint8
        assert np.bincount(part.labels, minlength=10).min() > 0.05 * len(part.labels)
    assert not np.array_equal(data.train.images, other.train.images)
    assert [len(part.images) for part in (data.train, data.validation, data.test)] == [1200, 400, 400]


def test_no_image_is_in_two_parts() -> None:
    from models.images import textures

    data = textures(COUNT)
    images = np.concatenate((data.train.images, data.validation.images, data.test.images))
    assert len(np.unique(images.reshape(COUNT, -1), axis=0)) == COUNT


@pytest.mark.parametrize("pixels", [16, 28])
def test_mnist_has_the_digits_that_its_labels_say(data: Path, pixels: int) -> None:
    from models.images import mnist

    digits = mnist(data / "mnist", pixels)
    assert digits.train.images.shape == (6000, pixels, pixels)
    assert digits.validation.images.shape == digits.test.images.shape == (2000, pixels, pixels)
    train, test = (part.images.reshape(len(part.images), -1).astype(np.float32) for part in (digits.train, digits.test))
    means = np.stack([train[digits.train.labels == digit].mean(0) for digit in range(10)])
    nearest = ((test[:, None] - means) ** 2).sum(2).argmin(1)
    assert (nearest == digits.test.labels).mean() > 0.7


def test_a_short_training_learns_and_repeats() -> None:
    from models.images import textures
    from models.training import accuracy, train
    from models.vision import resnet_cifar

    data, networks, threads = textures(5000), [], torch.get_num_threads()
    for _ in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            networks.append(resnet_cifar(8, 8))
        reached = train(networks[-1], data, epochs=1, seed=0, threads=1)
    assert reached == accuracy(networks[-1], data.validation) > 0.3
    assert not networks[-1].training
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, False)
    for first, again in zip(*(network.state_dict().values() for network in networks), strict=True):
        assert torch.equal(first, again)


def test_a_network_exports(tmp_path: Path) -> None:
    from models.example import export_module
    from models.images import inputs, textures
    from models.vision import make_network

    network, images = make_network("mobilenet_v1", seed=0).eval(), inputs(textures(20).train.images)
    path, batch = tmp_path / "network.onnx", torch.export.Dim("batch", max=4096)
    export_module(network, (torch.from_numpy(images[:2]),), path, ["image"], {"image": {0: batch}})
    (logits,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"image": images})
    with torch.no_grad():
        np.testing.assert_allclose(logits, network(torch.from_numpy(images)).numpy(), rtol=1e-4, atol=1e-5)
