"""The export of a network of the zoo, once for each set of options in a test session."""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from onnxscript import rewriter
from onnxscript.rewriter.rules import common
from tests.kits.zoo.entry import Entry, make, sample
from tests.kits.zoo.graphs import GraphEntry
from tests.kits.zoo.table import ZOO

from sartor.share import cache

FIRST_DYNAMO = 18
"""The first opset that the exporter on torch.export writes; the one on TorchScript writes those before."""
BATCH, LARGEST = "batch", 64
FOLDING = (
    common.fuse_batchnorm_into_conv_rule,
    common.fuse_batchnorm_into_conv_transpose_rule,
    common.fuse_batchnorm_into_gemm_rule,
)


@dataclass(frozen=True)
class Options:
    """How to export: `fold` lets the exporter fold batch normalisations, `dynamic` names the batch axis."""

    opset: int
    fold: bool
    dynamic: bool


def exported(name: str, opset: int | None = None, fold_batchnorm: bool = True, dynamic_batch: bool = False) -> bytes:
    """Return a network of the zoo as ONNX; raises what the exporter raises below the entry's oldest opset.

    It is kept in the cache of `sartor.share.cache`, which tests share with their workers.
    """
    entry = ZOO[name]
    options = Options(entry.opset if opset is None else opset, fold_batchnorm, dynamic_batch)
    key = f"zoo-{name}-{options.opset}-{options.fold:d}{options.dynamic:d}-{_digest()}"
    stored = cache.get(key)
    if stored is None:
        stored = _export(entry, options)
        cache.put(key, stored)
    return stored


def feed(name: str, batch: int, seed: int) -> dict[str, np.ndarray]:
    """Draw inputs of a network of the zoo by name."""
    shapes = ZOO[name].inputs
    return dict(zip(shapes, (tensor.numpy() for tensor in sample(shapes, batch, seed)), strict=True))


@functools.cache
def _digest() -> str:
    """Return a digest of all that an export depends on."""
    sources = (path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    versions = " ".join(version(package) for package in ("torch", "onnx", "onnxscript"))
    return hashlib.sha256(b"".join(sources) + versions.encode()).hexdigest()[:16]


def _export(entry: Entry | GraphEntry, options: Options) -> bytes:
    if isinstance(entry, GraphEntry):
        return entry.build(options.opset, BATCH if options.dynamic else "1").SerializeToString()
    # Exporting for a named batch axis takes an example of another size than 1, which torch would take for a constant.
    inputs = sample(entry.inputs, batch=2 if options.dynamic else 1, seed=0)
    export = _by_dynamo if options.opset >= FIRST_DYNAMO else _by_script
    with _quiet():
        return export(entry, inputs, options)


def _by_dynamo(entry: Entry, inputs: tuple[torch.Tensor, ...], options: Options) -> bytes:
    batch = torch.export.Dim(BATCH, max=LARGEST)
    kept = tuple(rule for rule in rewriter._DEFAULT_REWRITE_RULES if options.fold or rule not in FOLDING)
    with patch.object(rewriter, "_DEFAULT_REWRITE_RULES", kept):
        program = torch.onnx.export(
            make(entry),
            inputs,
            dynamic_shapes=tuple({0: batch} for _ in inputs) if options.dynamic else None,
            **_common(entry, options),
        )
    return program.model_proto.SerializeToString()


def _by_script(entry: Entry, inputs: tuple[torch.Tensor, ...], options: Options) -> bytes:
    mode = torch.onnx.TrainingMode.EVAL if options.fold else torch.onnx.TrainingMode.PRESERVE
    names = (*entry.inputs, *entry.outputs)
    file = io.BytesIO()
    torch.onnx.export(
        make(entry),
        inputs,
        file,
        dynamo=False,
        training=mode,
        dynamic_axes={name: {0: BATCH} for name in names} if options.dynamic else None,
        **_common(entry, options),
    )
    return file.getvalue()


def _common(entry: Entry, options: Options) -> dict[str, Any]:
    """Return what both exporters are told."""
    names = {"input_names": list(entry.inputs), "output_names": list(entry.outputs)}
    return {"opset_version": options.opset, "verbose": False, **names}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporters say about torchvision and about their own age."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
