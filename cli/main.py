"""The `sartor` command: one table of commands, each imported only when it is asked for."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from inspect import getdoc
from typing import Annotated

import typer

from sartor import __version__
from sartor.cli._frame import BROKEN_PIPE, exit_codes, flush_stdout, settle_stdout
from sartor.share import console
from sartor.share.errors import UsageError

COMMANDS = (
    "fuse", "prune", "sparsify-rnn", "fold-pack", "fold-train", "fold-predict", "run", "verify", "bench", "inspect",
    "quickcheck", "doctor",
)  # fmt: skip
"""Every command in the order of `sartor --help`; command `a-b` is function `a_b` in `cli/a_b.py`."""


def main() -> int:
    """Run the command line of this process and return the exit code."""
    # A model's graph is a hundred thousand objects that all live to the end: collecting often only costs time.
    gc.set_threshold(100_000, 20, 100)
    return run(sys.argv[1:])


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return the exit code."""
    named = arguments[0] if arguments and arguments[0] in COMMANDS else None
    try:
        with console.speaking_as(f"sartor {named}" if named else "sartor"), exit_codes():
            return _dispatch(arguments, named)
    except SystemExit as stop:
        return _exit_code(stop)


def build(names: Sequence[str]) -> typer.Typer:
    """Return the application with these commands; importing all of them costs more than one."""
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, callback=sartor)
    for name in names:
        function = load_command(name)
        text, example = split_example(getdoc(function) or "")
        # typer would cut the first sentence at 45 characters.
        summary = " ".join(text.split("\n\n")[0].split())
        app.command(name, help=text, short_help=summary, epilog=f"\b\n{example}")(function)
    return app


def load_command(name: str) -> Callable[..., None]:
    """Import the function behind a command."""
    attribute = name.replace("-", "_")
    function: Callable[..., None] = getattr(import_module(f"sartor.cli.{attribute}"), attribute)
    return function


def split_example(documentation: str) -> tuple[str, str]:
    """Split a docstring into its text and its `Example:` block."""
    text, _, example = documentation.partition("\nExample:\n")
    return text.strip(), f"Example:\n{example.rstrip()}"


def _show_version(asked: bool) -> None:
    if asked:
        print(f"sartor {__version__}")
        raise typer.Exit


def sartor(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Stitch, trim and fold model artifacts; every command reads and writes ONNX, so that commands chain by pipe."""


def _dispatch(arguments: Sequence[str], named: str | None) -> int:
    app = build((named,) if named else COMMANDS)
    try:
        code = app(args=list(arguments), prog_name="sartor", standalone_mode=False)
    except typer.TyperException as error:
        raise _usage_error(error, named) from error
    flush_stdout()
    return code if isinstance(code, int) else 0


def _usage_error(error: typer.TyperException, named: str | None) -> UsageError:
    reason = error.format_message().rstrip(".?")
    help_line = f"sartor {named} --help" if named else "sartor --help"
    return UsageError(reason[:1].lower() + reason[1:], remedy=f"See `{help_line}`")


def _exit_code(stop: SystemExit) -> int:
    # typer answers a closed pipe below `--help` with a plain 1.
    if isinstance(stop.__context__, BrokenPipeError):
        settle_stdout()
        return BROKEN_PIPE
    return stop.code if isinstance(stop.code, int) else 1
