"""The command `sartor doctor`."""

from __future__ import annotations

from sartor.cli._frame import command
from sartor.cli._options import Json


@command("doctor")
def doctor(json: Json = False) -> None:
    """Check this installation: versions, devices, caches, compiler and kernels.

    Exits with 1 when something that sartor needs is broken.

    Example:
        sartor doctor
        sartor doctor --json > health.json
    """
