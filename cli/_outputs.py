"""What commands check of their outputs before they begin to work, and how they say what they did."""

from __future__ import annotations

from typing import Any

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


def tell(document: dict[str, Any], text: str, line: str, report: str | None, as_json: bool, target: str | None) -> None:
    """Write the document to the report, if one is asked for, and print it or, without a target, the text.

    Otherwise people get the line on stderr, and the text too where they asked for more.
    """
    from json import dumps

    from sartor.share.artifact import write_bytes
    from sartor.share.console import detail, note

    written = dumps(document, indent=2)
    if report is not None:
        write_bytes(f"{written}\n".encode(), report)
    if as_json:
        print(written)
    elif target is None:
        print(text)
    else:
        note(line)
        detail(text)
