"""The command `sartor doctor`."""

from __future__ import annotations

from sartor.cli._frame import command
from sartor.cli._options import Json


@command("doctor")
def doctor(json: Json = False) -> None:
    """Check this installation: versions, devices, caches, compiler and kernels.

    Exits with 1 when something that a command needs is broken.

    Example:
        sartor doctor
        sartor doctor --json > health.json
    """
    from json import dumps

    from sartor.share.console import note
    from sartor.share.doctor import diagnose, require_healthy, table

    diagnosis = diagnose()
    if json:
        print(dumps(diagnosis.as_json(), indent=2))
    else:
        note(table(diagnosis))
    require_healthy(diagnosis)
