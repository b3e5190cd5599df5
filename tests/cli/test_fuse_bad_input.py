"""`sartor fuse` on bad input, full disks, closed pipes, terminals and signals: one line, the right code, no damage."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import pty
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from tests.conftest import RunSartor
from tests.kits.fuse_models import assert_same_results, blocks, calls, fuse, fused, save

from sartor.share.artifact import quickcheck

SCRIPT = Path(sys.executable).with_name("sartor")
SECONDS = 60


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return the path of the model of blocks."""
    path = tmp_path / "net.onnx"
    onnx.save(blocks(), path)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return the path of an old output in a folder of its own."""
    path = tmp_path / "out" / "fused.onnx"
    path.parent.mkdir()
    path.write_bytes(b"old")
    return path


def assert_untouched(target: Path) -> None:
    """Check that the old output is all that its folder holds."""
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert target.read_bytes() == b"old"


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("net.onnx", b"x")
    return buffer.getvalue()


def archived() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(2))
    return buffer.getvalue()


FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "this is an empty file"),
    "pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "this is a git-lfs pointer"),
    "html": (lambda: b"<!DOCTYPE html><html></html>", "this is an HTML page"),
    "zip": (zipped, "this is a zip archive"),
    "npz": (archived, "this is a NumPy .npz archive"),
    "pickle": (lambda: pickle.dumps({"a": 1}), "this is a Python pickle"),
    "gzip": (lambda: gzip.compress(blocks().SerializeToString()), "this is a compressed file"),
    "json": (lambda: b'{"a": 1}', "this is a JSON document"),
    "text": (lambda: b"a letter\n", "this is a text file"),
    "random": (lambda: np.random.default_rng(1).bytes(5000), "this is data of an unknown kind"),
    "cut": (lambda: blocks().SerializeToString()[:200], "the model is cut short, 200 bytes of at least"),
}


def refuse(path: Path, target: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """Fuse a model that is refused with 65 and one line, and return what follows its name in that line."""
    capfd.readouterr()
    assert fuse(path, "-o", target, "--no-measure") == 65
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    head = f"sartor fuse: error: {path}: "
    assert err.startswith(head)
    assert_untouched(target)
    return err.removeprefix(head)


@pytest.mark.parametrize("case", FILES)
def test_what_is_no_model_is_refused(
    case: str, tmp_path: Path, target: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make, reason = FILES[case]
    path = tmp_path / "bad.onnx"
    path.write_bytes(make())
    assert refuse(path, target, capfd).startswith(reason)


def test_files_that_are_none_are_refused(tmp_path: Path, target: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert refuse(tmp_path / "no.onnx", target, capfd).startswith("there is no such file. ")
    assert refuse(tmp_path, target, capfd).startswith("this is a folder, not an ONNX model. ")
    assert refuse(Path("/dev/zero"), target, capfd).startswith("this is a device, not a file. ")


def unknown_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = onnx.defs.onnx_opset_version() + 1


def newer_ir(model: onnx.ModelProto) -> None:
    model.ir_version = onnx.IR_VERSION + 1


def training_information(model: onnx.ModelProto) -> None:
    model.training_info.add().algorithm.name = "a"


def circle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "y"


def unknown_input(model: onnx.ModelProto) -> None:
    model.graph.node[3].input[0] = "nowhere"


def wrong_size(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 31


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "Gelo"


def mixed_types(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones(32, np.int64), "bias"))


def outside_data(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


EDITS: dict[Callable[[onnx.ModelProto], None], str] = {
    unknown_opset: f"the model uses opset {onnx.defs.onnx_opset_version() + 1}; the newest that we know is",
    newer_ir: f"the model has IR version {onnx.IR_VERSION + 1}; the newest that we know is",
    training_information: "the model carries training information, which we would lose. ",
    circle: "node 'add_a' (Add) depends on its own result. ",
    unknown_input: "node 'add_d' (Add) reads 'nowhere', which nothing defines. ",
    wrong_size: "tensor 'bias' declares 124 bytes and holds 128. ",
    unknown_operator: "it is not valid ONNX (No Op registered for Gelo with domain_version of 20). ",
    mixed_types: "it is not valid ONNX (",
    outside_data: "tensor 'bias' names its data file '/etc/passwd' as an absolute path. ",
}


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_models_that_make_no_sense_are_refused(
    edit: Callable[[onnx.ModelProto], None], model: Path, target: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    proto = blocks()
    edit(proto)
    model.write_bytes(proto.SerializeToString())
    assert refuse(model, target, capfd).startswith(EDITS[edit])


def test_truncation_at_64_points(model: Path, target: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = model.read_bytes()
    for step in range(64):
        model.write_bytes(data[: len(data) * step // 64])
        refuse(model, target, capfd)


def test_bit_flips_end_in_0_or_65(model: Path, target: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # Most bits of large weights would only change a number.
    data = blocks(width=4).SerializeToString()
    chance = random.Random(20240501)
    codes = {0: 0, 65: 0}
    for _ in range(200):
        flipped = bytearray(data)
        for bit in chance.sample(range(8 * len(data)), chance.choice((1, 1, 2, 8))):
            flipped[bit // 8] ^= 1 << bit % 8
        model.write_bytes(flipped)
        target.write_bytes(b"old")
        codes[code := fuse(model, "-o", target, "--no-measure", "-q")] += 1
        err = capfd.readouterr().err
        assert err.count("\n") == (code == 65), err
        if code == 65:
            assert_untouched(target)
    assert min(codes.values()) > 20


def test_full_disk(model: Path, sartor: RunSartor) -> None:
    reason = b"writing failed (no space left on device). Free some space, or write elsewhere\n"
    with Path("/dev/full").open("wb") as full:
        done = sartor("fuse", model, "--no-measure", "-q", stdout=full)
    assert (done.returncode, done.stderr) == (74, b"sartor fuse: error: standard output: " + reason)
    done = sartor("fuse", model, "--no-measure", "-q", "-o", "/dev/full")
    assert (done.returncode, done.stdout, done.stderr) == (74, b"", b"sartor fuse: error: /dev/full: " + reason)


def test_closed_pipe_is_quiet(model: Path, sartor: RunSartor) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = sartor("fuse", model, "--no-measure", "-q", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("option", ["-o", "--report"])
@pytest.mark.parametrize("place", ["{model}/out", "/proc/out", "{folder}/none/out", "{folder}"])
def test_places_that_take_no_file(
    place: str, option: str, model: Path, target: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = place.format(model=model, folder=model.parent)
    before = sorted(model.parent.rglob("*"))
    others = ["-o", str(target)] if option == "--report" else []
    assert fuse(model, option, path, *others, "--no-measure") == 73
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"sartor fuse: error: {path}: ")
    assert sorted(model.parent.rglob("*")) == before
    assert_untouched(target)


STRUCK = """
import os, signal, sys
from sartor.cli.main import run

def strike(file):
    if os.fstat(file).st_size > 1000:
        os.kill(os.getpid(), int(sys.argv[1]))
    return fsync(file)

fsync, os.fsync = os.fsync, strike
sys.exit(run(["fuse", *sys.argv[2:], "--no-measure"]))
"""
"""Runs `sartor fuse` and sends a signal to it when the model lies in the temporary file and nowhere else."""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_signals_while_writing_leave_the_old_file(signum: signal.Signals, model: Path, target: Path) -> None:
    command = [sys.executable, "-c", STRUCK, str(int(signum)), str(model), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, timeout=SECONDS)
    if signum is signal.SIGKILL:
        assert done.returncode == -signum
        (part,) = target.parent.glob(".fused.onnx.*.part")
        part.unlink()
    else:
        assert done.returncode == 128 + signum
        reason = b"interrupted" if signum is signal.SIGINT else b"stopped by signal %d" % signum
        assert done.stderr == b"sartor fuse: error: %s\n" % reason
    assert_untouched(target)


def test_interrupt_while_measuring_leaves_nothing(model: Path, target: Path, tmp_path: Path) -> None:
    cache, temporary = tmp_path / "cache", tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "SARTOR_CACHE_DIR": str(cache), "TMPDIR": str(temporary)}
    child = subprocess.Popen([SCRIPT, "fuse", model, "-o", target], env=environment, stderr=subprocess.PIPE)
    until = time.monotonic() + SECONDS
    # The first kernel in the cache says that measuring has begun.
    while not any(cache.rglob("k_*.o")):
        assert child.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=SECONDS)
    assert (child.returncode, err) == (130, b"sartor fuse: error: interrupted\n")
    assert_untouched(target)
    # onnxruntime keeps a file of its own there.
    assert [path.name for path in temporary.iterdir() if path.name != ".ses"] == []


def test_two_processes_on_one_output_leave_one_whole_file(model: Path, target: Path) -> None:
    choices = [["--only", "Gelu"], ["--skip", "Gelu"]]
    command = [SCRIPT, "fuse", model, "-o", target, "--no-measure", "--no-history", "-q"]
    children = [subprocess.Popen([*command, *choice]) for choice in choices]
    assert [child.wait(SECONDS) for child in children] == [0, 0]
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert quickcheck(target) is None
    wanted = [fused(model, "--no-history", *choice).read_bytes() for choice in choices]
    assert target.read_bytes() in wanted


def on_terminal(*arguments: str | Path, stream: str, **variables: str) -> tuple[int, bytes, bytes]:
    """Run `sartor fuse` with one stream on a terminal; return the code, what the terminal got, and stderr."""
    main, secondary = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **variables}
    environment.pop("NO_COLOR", None)
    streams = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, stream: secondary}
    done = subprocess.run([SCRIPT, "fuse", *arguments], env=environment, timeout=SECONDS, **streams)
    os.close(secondary)
    shown = b""
    # The terminal reports an error once its last writer is gone.
    with suppress(OSError):
        while chunk := os.read(main, 65536):
            shown += chunk
    os.close(main)
    return done.returncode, shown, done.stderr


def test_a_terminal_gets_no_model(model: Path) -> None:
    code, shown, err = on_terminal(model, stream="stdout")
    assert (code, shown) == (2, b"")
    assert err.startswith(b"sartor fuse: error: ")
    assert err.count(b"\n") == 1


def test_a_terminal_gives_no_model(target: Path) -> None:
    code, _, err = on_terminal("-o", target, stream="stdin")
    assert (code, err) == (
        2,
        b"sartor fuse: error: standard input: it is a terminal. Pipe a model in, or name a file\n",
    )
    assert_untouched(target)


def test_a_terminal_shows_progress(model: Path, target: Path, tmp_path: Path) -> None:
    code, shown, _ = on_terminal(model, "-o", target, stream="stderr", SARTOR_CACHE_DIR=str(tmp_path / "cold"))
    assert code == 0
    assert b"measuring groups" in shown
    assert b"/3" in shown
    assert b" groups fused; " in shown


HEAD = '<ir_version: 10, opset_import: ["" : 20, "com.example" : 1, "ai.onnx.preview.training" : 1]>'
ROWS = "(float[n, 8] x) => (float[n, 8] y)"
CHOICE = f"""{HEAD} g {ROWS} {{
    a = Exp(x)  b = Add(a, x)  s = ReduceSum<keepdims = 0>(b)  z = Constant<value = float {{0}}>()  yes = Greater(s, z)
    c = If(yes) <
        then_branch = t () => (float[n, 8] p) {{ q = Exp(b)  p = Add(q, b) }},
        else_branch = e () => (float[n, 8] r) {{ o = Tanh(b)  r = Mul(o, b) }}>
    d = Tanh(c)  y = Mul(d, c)
}}"""
LOOP = f"""{HEAD} g {ROWS} {{
    yes = Constant<value = bool {{1}}>()  three = Constant<value = int64 {{3}}>()  a = Exp(x)  b = Add(a, x)
    c = Loop(three, yes, b) <body = body (int64 i, bool on, float[n, 8] v) => (bool still, float[n, 8] w)
        {{ still = Identity(on)  u = Tanh(v)  w = Mul(u, v) }}>
    d = Tanh(c)  y = Mul(d, c)
}}"""
SEQUENCE = f"""{HEAD} g {ROWS} {{
    a = Exp(x)  b = Add(a, x)  s = SequenceConstruct(b, x)  i = Constant<value_int = 0>()  c = SequenceAt(s, i)
    d = Tanh(c)  y = Mul(d, c)
}}"""


@pytest.mark.parametrize("text", [CHOICE, LOOP, SEQUENCE], ids=["if", "loop", "sequence"])
@pytest.mark.parametrize("options", [("--no-measure",), ()], ids=["unmeasured", "measured"])
def test_control_flow_and_sequences_pass(
    text: str, options: tuple[str, ...], tmp_path: Path, target: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "net.onnx", text)
    assert fuse(path, "-o", target, *options) == 0
    assert capfd.readouterr().err.count("\n") == 1
    assert_same_results(target, path, kernels=None)
    assert calls(target) or options == ()


UNKNOWN = f"{HEAD} g {ROWS} {{ a = Exp(x)  b = Add(a, x)  c = com.example.Odd(b)  d = Exp(c)  y = Add(d, c) }}"
TRAINING = f"""{HEAD} g (float r, int64 t, float[8] x, float[8] g, float[8] v) => (float[8] y, float[8] w)
{{ a = Exp(g)  b = Mul(a, g)  y, w = ai.onnx.preview.training.Adagrad(r, t, x, b, v) }}"""
BFLOAT = f"{HEAD} g (bfloat16[n] x) => (bfloat16[n] y) {{ a = Exp(x)  y = Add(a, x) }}"


@pytest.mark.parametrize(
    ("text", "groups"), [(UNKNOWN, 1), (TRAINING, 1), (BFLOAT, 0)], ids=["domain", "training", "bfloat16"]
)
def test_models_that_only_others_run_pass_with_a_warning(
    text: str, groups: int, tmp_path: Path, target: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "net.onnx", text)
    assert fuse(path, "-o", target, "--no-measure") == 0
    warning, headline = capfd.readouterr().err.splitlines()
    assert warning.startswith(f"sartor fuse: warning: {path}: onnxruntime refuses it (")
    assert headline == f"{groups} of {groups} groups fused"
    onnx.checker.check_model(onnx.load(target), full_check=True)
    assert len(calls(target)) == groups
    kept = [node.op_type for node in onnx.load(path).graph.node if node.domain]
    assert [node.op_type for node in onnx.load(target).graph.node if node.domain not in ("", "sartor.fuse")] == kept


def test_a_model_that_fails_on_random_inputs_passes(
    tmp_path: Path, target: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = (
        f"{HEAD} g (int32[n, 8] x, int32[n, 8] z) => (int32[n, 8] y) {{ a = Add(x, x)  b = Div(a, z)  y = Mul(b, x) }}"
    )
    path = save(tmp_path / "net.onnx", text)
    assert fuse(path, "-o", target, "--dry-run") == 0
    assert "left out: it could not be measured: the model can't run with these inputs: " in capfd.readouterr().out
