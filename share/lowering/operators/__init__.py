"""The rules of all operators, one kind a file."""

from __future__ import annotations

import functools
import importlib

KINDS = (
    "elementwise",
    "movement",
    "indexing",
    "reductions",
    "linear",
    "convolution",
    "normalisation",
    "pooling",
    "resizing",
    "recurrent",
    "attention",
    "quantisation",
    "sequences",
    "control",
    "generators",
    "losses",
    "signal",
    "vision",
)


@functools.cache
def load() -> None:
    """Fill the table of rules."""
    for kind in KINDS:
        importlib.import_module(f"{__name__}.{kind}")
