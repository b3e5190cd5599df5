"""Everything that people read: lines and progress on stderr, never on stdout."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

HEARTBEAT_SECONDS = 30.0

Step = Callable[[int], None]
"""Advances a progress display by a number of units."""


@dataclass(frozen=True)
class Style:
    """Who speaks, and how much: `level` is 0 when quiet, 1 by default, 2 when verbose."""

    command: str = "sartor"
    level: int = 1


_DEFAULT = Style()
_style: ContextVar[Style] = ContextVar("sartor_console_style", default=_DEFAULT)


@contextmanager
def speaking_as(command: str, *, quiet: bool = False, verbose: bool = False) -> Iterator[None]:
    """Set the name and the level of all messages in the block."""
    token = _style.set(Style(command, 0 if quiet else 2 if verbose else 1))
    try:
        yield
    finally:
        _style.reset(token)


def one_line(text: str) -> str:
    """Return the text on one line, with characters that could steer a terminal replaced by `?`."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))


def note(text: str) -> None:
    """Say something useful; silent with `--quiet`."""
    if _style.get().level >= 1:
        _write(text)


def detail(text: str) -> None:
    """Say something that only `--verbose` asks for."""
    if _style.get().level >= 2:
        _write(text)


def warn(text: str) -> None:
    """Say in one line what the user should look at; silent with `--quiet`."""
    style = _style.get()
    if style.level >= 1:
        _write(f"{style.command}: warning: {one_line(text)}")


def error(text: str) -> None:
    """Say in one line why the command failed; never silent."""
    _write(f"{_style.get().command}: error: {one_line(text)}")


def _write(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def draws_bars() -> bool:
    """Tell whether stderr is a terminal that accepts cursor movement and colour."""
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    return sys.stderr is not None and sys.stderr.isatty() and not plain


@contextmanager
def progress(label: str, total: int | None = None) -> Iterator[Step]:
    """Show progress in the block: a bar on a terminal, otherwise one line every 30 s; yields the step function."""
    if _style.get().level == 0:
        yield lambda _count: None
    elif draws_bars():
        with _bar(label, total) as step:
            yield step
    else:
        with _heartbeat(label, total) as step:
            yield step


@contextmanager
def _bar(label: str, total: int | None) -> Iterator[Step]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # redirect_stdout would send the artifact's bytes through rich.
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)


@contextmanager
def _heartbeat(label: str, total: int | None) -> Iterator[Step]:
    done = [0]
    finished = threading.Event()

    def step(count: int) -> None:
        done[0] += count

    def beat() -> None:
        begin = time.monotonic()
        while not finished.wait(HEARTBEAT_SECONDS):
            count = f"{done[0]}/{total}" if total is not None else str(done[0])
            _write(f"{label}: {count}, {time.monotonic() - begin:.0f} s")

    thread = threading.Thread(target=beat, name="sartor-heartbeat", daemon=True)
    thread.start()
    try:
        yield step
    finally:
        finished.set()
        thread.join()
