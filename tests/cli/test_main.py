"""The frame around commands: every way to end is one line and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import RunSartor

from sartor import __version__
from sartor.cli._frame import command
from sartor.cli._options import parse_shapes
from sartor.cli.main import run
from sartor.share import errors

CASES = [
    (errors.GoalNotMetError("too slow"), 1, "too slow"),
    (errors.UsageError("odd", subject="--only", remedy="Try `*`"), 2, "--only: odd. Try `*`"),
    (
        errors.InputRefusedError("empty file", subject="a.onnx", remedy="Give a model"),
        65,
        "a.onnx: empty file. Give a model",
    ),
    (errors.UnavailableError("absent", subject="cuda"), 69, "cuda: absent"),
    (errors.OutputError("no"), 73, "no"),
    (errors.WriteError("no"), 74, "no"),
    (errors.CheckpointedError("stopped"), 75, "stopped"),
    (errors.InputRefusedError("two\nlines and \x1b[2J an escape"), 65, "two lines and ?[2J an escape"),
    (OSError(errno.ENOSPC, "No space left on device", "o.onnx"), 74, "o.onnx: no space left on device. Free"),
    (OSError(errno.EROFS, "Read-only file system", "o.onnx"), 73, "o.onnx: read-only file system. Check"),
    (OSError(errno.EACCES, "Permission denied", "o.onnx"), 73, "o.onnx: permission denied. Check"),
    (
        OSError(errno.EINVAL, "Invalid argument"),
        70,
        "internal error: OSError: [Errno 22] Invalid argument. Please report",
    ),
    (MemoryError(), 70, "out of memory. "),
    (KeyboardInterrupt(), 130, "interrupted"),
    (ZeroDivisionError("float\ndivision"), 70, "internal error: ZeroDivisionError: float division. Please report"),
]


def fail_with(error: BaseException) -> int:
    """Return the exit code of a command that raises this."""

    @command("tailor")
    def tailor() -> None:
        raise error

    with pytest.raises(SystemExit) as stop:
        tailor()
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.mark.parametrize(("error", "code", "line"), CASES, ids=lambda value: type(value).__name__)
def test_errors_become_one_line(
    error: BaseException, code: int, line: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SARTOR_DEBUG", raising=False)
    assert fail_with(error) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"sartor tailor: error: {line}")
    assert err.count("\n") == 1


def test_traceback_only_for_debugging(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SARTOR_DEBUG", "1")
    assert fail_with(ValueError("odd")) == 70
    err = capfd.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith(
        "sartor tailor: error: internal error: ValueError: odd. Please report it with SARTOR_DEBUG=1 output\n"
    )


def test_python_warnings_are_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    @command("tailor")
    def tailor(quiet: bool = False) -> None:
        warnings.warn("the cache\nis full", RuntimeWarning, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        tailor()
        assert capfd.readouterr().err == "sartor tailor: warning: the cache is full\n"
        tailor(quiet=True)
        assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "sartor: error: missing command. See `sartor --help`\n"),
        (["docter"], "sartor: error: no such command 'docter'. Did you mean 'doctor'. See `sartor --help`\n"),
        (["--frobnicate"], "sartor: error: no such option: --frobnicate. See `sartor --help`\n"),
        (
            ["doctor", "--frobnicate"],
            "sartor doctor: error: no such option: --frobnicate. See `sartor doctor --help`\n",
        ),
        (
            ["doctor", "one"],
            "sartor doctor: error: got unexpected extra argument(s) (one). See `sartor doctor --help`\n",
        ),
    ],
)
def test_usage_errors_are_one_line(arguments: list[str], line: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert capfd.readouterr() == ("", line)


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capfd.readouterr() == (f"sartor {__version__}\n", "")


def test_help_to_a_full_disk(sartor: RunSartor) -> None:
    with Path("/dev/full").open("wb") as full:
        done = sartor("--help", stdout=full)
    assert done.returncode == 74
    assert done.stderr == b"sartor: error: output: no space left on device. Free some space or write elsewhere\n"


def test_help_to_a_closed_stdout() -> None:
    script = Path(sys.executable).with_name("sartor")
    done = subprocess.run(["bash", "-c", f"'{script}' --help >&-"], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_closed_pipe_is_quiet(arguments: list[str], sartor: RunSartor) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = sartor(*arguments, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def start_child(body: str, *arguments: str, **options: int) -> subprocess.Popen[bytes]:
    """Start a process with one command `child`; the body sees `sys`, `time` and `Path`."""
    head = """
        import sys, time
        from pathlib import Path
        from sartor.cli._frame import command

        @command("child")
        def child():
    """
    code = dedent(head).rstrip() + "\n" + "".join(f"    {line}\n" for line in dedent(body).strip().splitlines())
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([sys.executable, "-c", f"{code}\nchild()", *arguments], **pipes)


def test_closed_pipe_below_a_command_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    child = start_child("print('bytes')", stdout=writer)
    os.close(writer)
    assert child.communicate() == (None, b"")
    assert child.returncode == 141


def test_full_disk_below_a_command() -> None:
    with Path("/dev/full").open("wb") as full:
        child = start_child("print('bytes')", stdout=full.fileno())
    assert child.communicate()[1].startswith(b"sartor child: error: output: no space left on device.")
    assert child.returncode == 74


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)],
    ids=lambda value: str(value),
)
def test_signals_let_cleanup_run(signum: signal.Signals, code: int, tmp_path: Path) -> None:
    body = """
        part = Path(sys.argv[1])
        part.touch()
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            part.unlink()
    """
    child = start_child(body, str(tmp_path / "out.part"))
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signum)
    _, err = child.communicate(timeout=20)
    assert child.returncode == code
    assert err.count(b"\n") == 1
    assert err.startswith(b"sartor child: error: ")
    assert list(tmp_path.iterdir()) == []


def test_ignored_hangup_stays_ignored() -> None:
    ignore = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    code = "from sartor.cli._frame import command\nimport os\ncommand('x')(lambda: os.kill(os.getpid(), 1))()"
    done = subprocess.run([sys.executable, "-c", ignore, sys.executable, "-c", code], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    command("tailor")(lambda: None)()
    assert signal.getsignal(signal.SIGTERM) is before


def test_shapes() -> None:
    assert parse_shapes(None) == {}
    assert parse_shapes(["ids=1,128", "a=b=0"]) == {"ids": (1, 128), "a=b": (0,)}


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["ids"], "--shape ids: a shape is a name, an equals sign and sizes. "),
        (["=1"], "--shape =1: a shape is a name, an equals sign and sizes. "),
        (["ids="], "--shape ids=: '' is not a size. "),
        (["ids=1,-2"], "--shape ids=1,-2: '-2' is not a size. "),
        (["ids=1,²"], "--shape ids=1,²: '²' is not a size. "),
        (["ids=1", "ids=2"], "--shape ids=2: this input already has a shape. "),
    ],
)
def test_bad_shapes_are_refused(texts: list[str], reason: str) -> None:
    with pytest.raises(errors.UsageError) as refusal:
        parse_shapes(texts)
    assert str(refusal.value) == f"{reason}Write it as --shape ids=1,128"
