"""What commands check of their outputs before they begin to work."""

from __future__ import annotations

from sartor.share.errors import UsageError


def check_outputs(what: str, *paths: str | None, shown: bool) -> None:
    """Raise before any work is done if an output can't be written; `what` lists them for people.

    Outputs that are not asked for are None; `shown` says that a document goes to stdout too. Raises OutputError, and
    UsageError where two share stdout.
    """
    from sartor.share.artifact import check_target

    if paths.count("-") + shown > 1:
        raise UsageError(f"{what} can't share stdout", remedy="Name files for all but one")
    for path in paths:
        if path is not None:
            check_target(path)
