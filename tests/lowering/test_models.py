"""Whole models in torch: as onnxruntime has them, and with the gradients of the torch modules they come from."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from tests.kits.lowering_kit import arrays
from tests.lowering.conftest import NAMES

from sartor.share.artifact import read_model
from sartor.share.inputs import random_inputs
from sartor.share.lowering import FallbackWarning, Lowered, lower, write_back
from sartor.share.runtime import stock_options

DATA = os.environ.get("SARTOR_DATA")
PATHS = sorted(Path(DATA).rglob("*.onnx")) if DATA else []
SHAPES = {"silero_vad_16k_op15": {"sequence": (576,)}}
OTHER = {"batch": (3,), "sequence": (17,)}
CLOSE = 2e-6


def draw(model: ir.Model, shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Return random inputs; any byte for the classifier of bytes."""
    feed = random_inputs(model, shapes, [seed])
    if "bytes" in feed:
        feed["bytes"] = np.random.default_rng(seed).integers(0, 256, feed["bytes"].shape, dtype=np.int32)
    return feed


def run_stock(path: Path, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Run stock onnxruntime."""
    session = onnxruntime.InferenceSession(path, stock_options(1), providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def check(path: Path, lowered: Lowered, feed: dict[str, np.ndarray]) -> None:
    """Compare all outputs with those of onnxruntime, relative to the largest element; no node falls back."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        outputs = [arrays(value) for value in lowered(**feed).values()]
    for ours, theirs in zip(outputs, run_stock(path, feed), strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        assert np.abs(ours - theirs).max() <= CLOSE * np.abs(theirs).max()


@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_export_runs(name: str, exported: Callable[[str], Path]) -> None:
    path = exported(name)
    model = read_model(str(path)).ir
    lowered = lower(model)
    axes = {dim.value for value in model.graph.inputs for dim in value.shape or () if not isinstance(dim, int)}
    check(path, lowered, draw(model, {}, 1))
    check(path, lowered, draw(model, {name: size for name, size in OTHER.items() if name in axes}, 2))


@pytest.mark.skipif(not PATHS, reason="SARTOR_DATA names no folder of real models")
@pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])
def test_a_real_model_runs(path: Path) -> None:
    model = read_model(str(path)).ir
    check(path, lower(model), draw(model, SHAPES.get(path.stem, {}), 1))


@pytest.mark.skipif(not PATHS, reason="SARTOR_DATA names no folder of real models")
def test_speech_is_told_from_silence() -> None:
    """The state of the detector goes from window to window, and the right branch of every If runs."""
    import wave

    folder = Path(str(DATA)) / "speech"
    lowered = lower(read_model(str(folder / "silero_vad_16k_op15.onnx")).ir)
    with wave.open(str(folder / "speech_16k.wav")) as sound:
        samples = np.frombuffer(sound.readframes(sound.getnframes()), np.int16).astype(np.float32) / 32768
    state, chances = np.zeros((2, 1, 128), np.float32), []
    feeds = [np.zeros((1, 576), np.float32)] + [samples[None, at : at + 576] for at in range(0, 32 * 512, 512)]
    reference = onnxruntime.InferenceSession(folder / "silero_vad_16k_op15.onnx", stock_options(1))
    for window in feeds:
        feed = {"input": window, "state": state, "sr": np.array(16000)}
        chance, following = reference.run(None, feed)
        ours = list(lowered(**feed).values())
        np.testing.assert_allclose(ours[0].numpy(), chance, atol=1e-5)
        np.testing.assert_allclose(ours[1].numpy(), following, atol=1e-4)
        state, chances = following, [*chances, chance.item()]
    assert chances[0] < 0.1 < max(chances)


def fold_norms(module: torch.nn.Module) -> None:
    """Fold batch normalisations into the convolutions before them, as the exporter does."""
    for part in module.modules():
        if isinstance(part, torch.nn.Sequential) and len(part) == 2 and isinstance(part[1], torch.nn.BatchNorm2d):
            part[0] = torch.nn.utils.fusion.fuse_conv_bn_eval(part[0], part[1])
            part[1] = torch.nn.Identity()


@pytest.mark.parametrize("name", ["encoder", "resnet"])
def test_gradients_are_those_of_the_torch_module(name: str, exported: Callable[[str], Path]) -> None:
    from models import make

    example = make(name, small=True)
    fold_norms(example.module)
    lowered = lower(read_model(str(exported(name))).ir)
    tensors = lowered.tensors()
    common = dict(example.module.named_parameters()).keys() & tensors.keys()
    assert len(common) >= 10
    ours = {name: tensors[name].requires_grad_() for name in common}
    theirs = {name: example.module.get_parameter(name).requires_grad_() for name in common}
    (output,) = lowered(**dict(zip(lowered.input_names, example.inputs, strict=True))).values()
    output.square().mean().backward()
    example.module(*example.inputs).square().mean().backward()
    pairs = {name: (ours[name].grad, theirs[name].grad) for name in common}
    # Some gradients are 0 but for rounding, such as those of the biases of keys: the largest one is the measure.
    largest = max(float(expected.abs().max()) for _, expected in pairs.values())
    for actual, expected in pairs.values():
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-5 * largest)


def test_parameters_know_no_gradients_until_asked(exported: Callable[[str], Path]) -> None:
    lowered = lower(read_model(str(exported("resnet"))).ir)
    assert all(not parameter.requires_grad for parameter in lowered.parameters())
    assert {id(parameter) for parameter in lowered.parameters()} <= {id(one) for one in lowered.tensors().values()}


def test_tuned_tensors_are_written_back(exported: Callable[[str], Path], tmp_path: Path) -> None:
    path = exported("resnet")
    model = read_model(str(path)).ir
    lowered = lower(model)
    feed = draw(model, {}, 1)
    before = run_stock(path, feed)[0]
    with torch.no_grad():
        for parameter in lowered.parameters():
            parameter.mul_(0.9)
        (expected,) = lowered(**feed).values()
    assert run_stock(path, feed)[0].tobytes() == before.tobytes()
    write_back(model, lowered.tensors())
    ir.save(model, tmp_path / "tuned.onnx")
    after = run_stock(tmp_path / "tuned.onnx", feed)[0]
    assert np.abs(after - before).max() > 0.01 * np.abs(before).max()
    np.testing.assert_allclose(after, expected.numpy(), rtol=1e-4, atol=1e-5)
