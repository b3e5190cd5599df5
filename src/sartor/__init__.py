"""A command-line toolchain for model artifacts: it stitches, trims and folds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sartor.share.runtime import load as load

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    # Lazy, so that `import sartor` (and with it `sartor --help`) stays free of onnxruntime.
    if name == "load":
        from sartor.share.runtime import load

        return load
    raise AttributeError(f"module 'sartor' has no attribute {name!r}")
