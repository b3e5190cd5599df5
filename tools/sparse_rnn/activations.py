"""The activations of ONNX's recurrent operators, with their defaults and their own parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sartor.share.errors import InputRefusedError

Array = NDArray[Any]


@dataclass(frozen=True)
class Activation:
    """A function by its name in lower case, with the parameters it takes."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0

    def __call__(self, x: Array) -> Array:
        """Apply the function element by element."""
        return np.asarray(_FUNCTIONS[self.name](x, self.alpha, self.beta))


_FUNCTIONS: dict[str, Callable[[Array, float, float], Array]] = {
    "affine": lambda x, a, b: a * x + b,
    "relu": lambda x, a, b: np.maximum(x, 0),
    "leakyrelu": lambda x, a, b: np.where(x >= 0, x, a * x),
    "thresholdedrelu": lambda x, a, b: np.where(x > a, x, 0),
    "tanh": lambda x, a, b: np.tanh(x),
    "scaledtanh": lambda x, a, b: a * np.tanh(b * x),
    "sigmoid": lambda x, a, b: np.where(x >= 0, 1, np.exp(-np.abs(x))) / (1 + np.exp(-np.abs(x))),
    "hardsigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "elu": lambda x, a, b: np.where(x >= 0, x, a * np.expm1(np.minimum(x, 0))),
    "softsign": lambda x, a, b: x / (1 + np.abs(x)),
    "softplus": lambda x, a, b: np.logaddexp(x, 0),
}

PARAMETERS: dict[str, tuple[float, ...]] = {
    "affine": (1.0, 0.0),
    "leakyrelu": (0.01,),
    "thresholdedrelu": (1.0,),
    "scaledtanh": (1.0, 1.0),
    "hardsigmoid": (0.2, 0.5),
    "elu": (1.0,),
}
"""Default alpha, and beta where there is one. onnxruntime has 0 for both of Affine, ScaledTanh and ThresholdedRelu."""


def parse_activations(
    names: Sequence[str], alphas: Sequence[float], betas: Sequence[float], subject: str
) -> tuple[Activation, ...]:
    """Return the activations of all directions; alphas and betas are used up in order by those that take them.

    Raises InputRefusedError for names that ONNX does not have.
    """
    found, left = [], (list(alphas), list(betas))
    for name in map(str.lower, names):
        if name not in _FUNCTIONS:
            remedy = f"ONNX has {', '.join(sorted(_FUNCTIONS))}"
            raise InputRefusedError(f"there is no activation {name!r}", subject=subject, remedy=remedy)
        defaults = PARAMETERS.get(name, ())
        values = [queue.pop(0) if queue else default for default, queue in zip(defaults, left, strict=False)]
        found.append(Activation(name, *values))
    return tuple(found)
