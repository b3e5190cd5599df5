"""Messages and progress: on stderr only, plain where nobody watches."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time

import pytest

from sartor.share import console
from sartor.share.console import detail, error, note, one_line, progress, speaking_as, warn

BAR = """
import time
from sartor.share.console import note, progress
with progress("measuring", 4) as step:
    for _ in range(4):
        time.sleep(0.15)
        step(1)
    note("half way")
print("artifact")
"""


def speak() -> None:
    """Say one thing of each kind."""
    note("a note")
    detail("a detail")
    warn("a\nwarning")
    error("an\nerror")


@pytest.mark.parametrize(
    ("quiet", "verbose", "said"),
    [
        (False, False, ["a note", "sartor x: warning: a warning", "sartor x: error: an error"]),
        (False, True, ["a note", "a detail", "sartor x: warning: a warning", "sartor x: error: an error"]),
        (True, False, ["sartor x: error: an error"]),
        (True, True, ["sartor x: error: an error"]),
    ],
)
def test_levels(quiet: bool, verbose: bool, said: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with speaking_as("sartor x", quiet=quiet, verbose=verbose):
        speak()
    out, err = capfd.readouterr()
    assert (out, err.splitlines()) == ("", said)


def test_style_ends_with_its_block(capfd: pytest.CaptureFixture[str]) -> None:
    with speaking_as("sartor x", quiet=True):
        pass
    warn("back")
    assert capfd.readouterr().err == "sartor: warning: back\n"


def test_one_line() -> None:
    assert one_line(" a\n b\t\x1b[31mc\u202e ") == "a b ?[31mc?"


def test_heartbeat(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "HEARTBEAT_SECONDS", 0.2)
    with progress("measuring", 7) as step:
        step(3)
        time.sleep(0.3)
    time.sleep(0.3)
    assert capfd.readouterr() == ("", "measuring: 3/7, 0 s\n")


def test_heartbeat_without_a_total(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "HEARTBEAT_SECONDS", 0.2)
    with progress("reading") as step:
        step(5)
        time.sleep(0.3)
    assert capfd.readouterr().err == "reading: 5, 0 s\n"


def test_short_work_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with progress("measuring", 2) as step:
        step(2)
    assert capfd.readouterr() == ("", "")


def test_quiet_progress(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "HEARTBEAT_SECONDS", 0.05)
    with speaking_as("sartor x", quiet=True), progress("measuring") as step:
        step(1)
        time.sleep(0.2)
    assert capfd.readouterr() == ("", "")


def test_heartbeat_stops_after_an_error(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(console, "HEARTBEAT_SECONDS", 0.05)
    with pytest.raises(ValueError, match="odd"), progress("measuring"):
        raise ValueError("odd")
    time.sleep(0.2)
    assert capfd.readouterr().err == ""


def on_terminal(code: str, **variables: str) -> tuple[bytes, bytes]:
    """Run Python code with stderr on a terminal; return stdout and what the terminal got."""
    main, secondary = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **variables}
    if "NO_COLOR" not in variables:
        environment.pop("NO_COLOR", None)
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=secondary, env=environment)
    os.close(secondary)
    shown = b""
    # The terminal reports an error once its last writer is gone.
    try:
        while chunk := os.read(main, 65536):
            shown += chunk
    except OSError:
        pass
    os.close(main)
    return done.stdout, shown


def test_bar_on_a_terminal() -> None:
    out, shown = on_terminal(BAR)
    assert out == b"artifact\n"
    assert b"\x1b[" in shown
    assert b"measuring" in shown
    assert b"4/4" in shown


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_plain_on_a_terminal_that_wants_it(variables: dict[str, str]) -> None:
    out, shown = on_terminal(BAR, **variables)
    assert out == b"artifact\n"
    assert shown == b"half way\r\n"


def test_messages_do_not_load_rich() -> None:
    code = "import sys; from sartor.share.console import *; note('x'); exec('with progress(1): pass'); "
    done = subprocess.run([sys.executable, "-c", f"{code} sys.exit('rich' in sys.modules)"], capture_output=True)
    assert done.returncode == 0
