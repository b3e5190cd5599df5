"""Lower ONNX models to torch."""

from __future__ import annotations

from sartor.share.lowering.fallback import FallbackWarning
from sartor.share.lowering.lower import Override, lower, write_back
from sartor.share.lowering.module import Lowered

__all__ = ["FallbackWarning", "Lowered", "Override", "lower", "write_back"]
