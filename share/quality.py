"""How near the outputs of a model are to those of another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def likeness(outputs: Mapping[str, NDArray[Any]], wanted: Mapping[str, NDArray[Any]]) -> float:
    """Return 1 - |y - y0|^2 / |y0 - mean|^2 over all outputs of real numbers; the mean is that over samples, axis 0."""
    names = [name for name, array in wanted.items() if array.dtype.kind == "f"]
    wrong = sum(float(np.square(outputs[name].astype(np.float64) - wanted[name]).sum()) for name in names)
    spread = sum(float(np.square(wanted[name] - wanted[name].mean(0, dtype=np.float64)).sum()) for name in names)
    return 1 - wrong / spread if spread else float(wrong == 0)
