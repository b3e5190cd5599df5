"""The command `sartor doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from sartor.cli._frame import command
from sartor.cli._options import Json


@command("doctor")
def doctor(
    json: Json = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="First measure this machine for the cost model of fuse.")
    ] = False,
) -> None:
    """Check this installation: versions, devices, caches, compiler and kernels.

    With --calibrate it first times a suite of kernels, for less than a minute on an idle machine, fits the cost model
    of fuse to them and keeps it in the cache. Exits with 1 when something that a command needs is broken.

    Example:
        sartor doctor
        sartor doctor --json > health.json
    """
    from json import dumps

    from sartor.share.console import note
    from sartor.share.doctor import diagnose, require_healthy, table
    from sartor.tools.fuse.coefficients import described, finding

    if calibrate:
        from sartor.tools.fuse.calibrate import calibrate as measure_and_fit

        measure_and_fit()
    diagnosis = diagnose((finding(),))
    if json:
        print(dumps({**diagnosis.as_json(), "cost_model": described()}, indent=2))
    else:
        note(table(diagnosis))
    require_healthy(diagnosis)
