"""`sartor fuse --emit-library`: kernels for programs that have onnxruntime and nothing of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from tests.conftest import RunSartor
from tests.kits.fuse_models import blocks, calls, feed_for, fuse, save

import sartor as package
from sartor.share.runtime import kernels_of

needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler")
HOST = Path(__file__).parents[1] / "kits" / "library_host.c"
HEAD = '<ir_version: 10, opset_import: ["" : 20]>'

STRANGER = """
import json, sys
for name in ("sartor", "numba", "llvmlite"):
    sys.modules[name] = None
import numpy as np, onnxruntime
library, model, feed, outputs, folder, threads = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(library)
options.intra_op_num_threads = int(threads)
options.enable_profiling, options.profile_file_prefix = True, folder + "/profile"
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
np.savez(outputs, *session.run(None, dict(np.load(feed))))
events = json.load(open(session.end_profiling()))
print(*{event["args"]["op_name"] for event in events if "op_name" in event.get("args", {})})
"""
"""A process that could not import us if it wanted to; prints which operators ran."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return the path of the model of blocks."""
    path = tmp_path / "net.onnx"
    onnx.save(blocks(), path)
    return path


def emitted(model: Path, *options: str) -> tuple[Path, Path]:
    """Fuse a model with a library beside it, and return both paths."""
    target, library = model.with_name("fused.onnx"), model.with_name("fused.so")
    assert fuse(model, "-o", target, "--emit-library", library, "--no-measure", "-q", *options) == 0
    return target, library


def run_stranger(library: Path, model: Path, feed: dict[str, Any], threads: int = 1) -> tuple[list[Any], set[str]]:
    """Run a model in a process without us; return the outputs and the operators that ran."""
    given, made = model.with_name("feed.npz"), model.with_name("outputs.npz")
    np.savez(given, **feed)
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("PYTHON", "SARTOR"))}
    command = [sys.executable, "-I", "-c", STRANGER, library, model, given, made, model.parent, str(threads)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(made) as arrays:
        return list(arrays.values()), set(done.stdout.split())


def assert_runs_without_us(target: Path, library: Path, feed: dict[str, Any], threads: int = 1) -> None:
    """Check that a stranger gets the bytes of our session, from kernels of ours."""
    session = package.load(target, threads=threads)
    outputs, operators = run_stranger(library, target, feed, threads)
    assert {kernel.name for kernel in kernels_of(session)} == set(calls(target)) <= operators
    for left, right in zip(outputs, session.run(None, feed), strict=True):
        assert (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())


@needs_compiler
@pytest.mark.parametrize(("batch", "threads"), [(1, 1), (3, 1), (400, 2)])
def test_a_process_without_us_runs_the_kernels(batch: int, threads: int, model: Path) -> None:
    target, library = emitted(model)
    assert_runs_without_us(target, library, feed_for(model, batch), threads)


MATHEMATICS = f"""{HEAD}
g (double[n, 9] x, float16[n, 9] h, float[m, 9] z) => (double[n, 9] y, float16[n, 9] w, float[m] v) {{
    one = Constant<value = int64[1] {{1}}>()
    a = Sin(x)  b = Exp(a)  y = Mul(b, x)  c = Tanh(h)  w = Mul(c, h)  d = Exp(z)  v = ReduceSum<keepdims = 0>(d, one)
}}"""


@needs_compiler
def test_kernels_of_several_types_use_the_c_library(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", MATHEMATICS)
    target, library = emitted(path)
    generator = np.random.default_rng(1)
    kinds = {"x": np.float64, "h": np.float16, "z": np.float32}
    feed = {name: generator.normal(size=(5, 9)).astype(kind) for name, kind in kinds.items()}
    assert_runs_without_us(target, library, feed)


PHASES = f"""{HEAD}
g (float[n, 64] x, float[64] s) => (float[n, 64] y) {{
    a = LayerNormalization(x, s)  b = Abs(a)  m = ReduceMax<keepdims = 0>(b)  y = Div(a, m)
}}"""


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2])
def test_phases_follow_one_another(threads: int, tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", PHASES)
    target, library = emitted(path)
    generator = np.random.default_rng(2)
    feed = {"x": generator.normal(size=(5000, 64)).astype(np.float32), "s": np.ones(64, np.float32)}
    assert [kernel.phases for kernel in kernels_of(package.load(target))] == [3]
    assert_runs_without_us(target, library, feed, threads)


@needs_compiler
def test_the_library_shows_one_symbol(model: Path) -> None:
    _, library = emitted(model)
    if shutil.which("nm") is None:
        pytest.skip("no nm")
    done = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True)
    assert [line.split()[1:] for line in done.stdout.splitlines()] == [["T", "RegisterCustomOps"]]
    done = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True)
    assert not any(word in done.stdout for word in ("Py", "numba", "NRT"))


@needs_compiler
def test_a_program_in_c_runs_the_kernels(model: Path) -> None:
    target, library = emitted(model)
    (runtime,) = Path(onnxruntime.__file__).with_name("capi").glob("libonnxruntime.so.*") or pytest.skip("no library")
    host = model.with_name("host")
    subprocess.run(["cc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-o", host, HOST, "-ldl"], check=True)
    (x,) = feed_for(model).values()

    def run(path: Path | str) -> bytes:
        command = [host, runtime, path, target, *map(str, x.shape)]
        return subprocess.run(command, input=x.tobytes(), capture_output=True, check=True, timeout=60).stdout

    ours = package.load(target, threads=1).run(None, {"x": x})[0]
    assert run(library) == ours.tobytes()
    bodies = np.frombuffer(run(""), np.float32).reshape(ours.shape)
    np.testing.assert_allclose(ours, bodies, rtol=1e-5, atol=1e-6)


@needs_compiler
def test_many_sessions_come_and_go(model: Path) -> None:
    target, library = emitted(model)
    feed = feed_for(model)

    def run(_number: int) -> bytes:
        options = onnxruntime.SessionOptions()
        options.register_custom_ops_library(str(library))
        session = onnxruntime.InferenceSession(target, options, providers=["CPUExecutionProvider"])
        output: np.ndarray[Any, Any] = session.run(None, feed)[0]
        return output.tobytes()

    with ThreadPoolExecutor(4) as pool:
        results = {*pool.map(run, range(12)), *map(run, range(3))}
    assert results == {package.load(target).run(None, feed)[0].tobytes()}


@needs_compiler
def test_another_processor_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of a line of processors that ended before those with AVX2, so that none has both.
    monkeypatch.setattr("sartor.share.runtime.ahead.CHECKED", ("avx", "xop"))
    monkeypatch.setattr("sartor.share.kernels.machine._processor", lambda: ("bdver1", ("avx", "xop")))
    _, library = emitted(model)
    if os.uname().machine != "x86_64" or "xop" in Path("/proc/cpuinfo").read_text().split():
        pytest.skip("the processor has no extension to ask for, or all")
    reason = "sartor: these kernels are for processors with xop, which this one lacks; emit the library on this machine"
    with pytest.raises(Exception, match=reason):
        onnxruntime.SessionOptions().register_custom_ops_library(str(library))


@needs_compiler
def test_what_is_said(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    target, library = model.with_name("fused.onnx"), model.with_name("fused.so")
    assert fuse(model, "-o", target, "--emit-library", library, "--no-measure") == 0
    out, err = capfd.readouterr()
    said, headline = err.splitlines()
    assert out == ""
    assert said.startswith(f"{library}: 2 kernels for ")
    assert " and other processors with " in said
    assert headline == "3 of 3 groups fused; non-compute operators 4 -> 3"
    assert fuse(model, "-o", target, "--emit-library", library, "--only", "Nothing", "--no-measure") == 0
    assert f"warning: {library}: no group has a kernel, so the library is empty" in capfd.readouterr().err
    onnxruntime.SessionOptions().register_custom_ops_library(str(library))


@needs_compiler
def test_a_model_that_is_fused_already_gives_a_library(model: Path, tmp_path: Path) -> None:
    once, _ = emitted(model, "--only", "Softmax")
    target, library = tmp_path / "twice.onnx", tmp_path / "twice.so"
    assert fuse(once, "-o", target, "--emit-library", library, "--no-measure", "-q") == 0
    assert_runs_without_us(target, library, feed_for(model))


@needs_compiler
def test_the_same_bytes_twice(model: Path) -> None:
    assert len({emitted(model)[1].read_bytes() for _ in range(2)}) == 1


def refused(sartor: RunSartor, model: Path, *options: str, **variables: str) -> tuple[int, str]:
    """Ask for a library in vain; check that nothing is written, and return the code and the one line."""
    before = sorted(model.parent.iterdir())
    target, library = model.with_name("fused.onnx"), model.with_name("fused.so")
    command = ["fuse", model, "-o", target, "--emit-library", library, "--no-measure", *options]
    done = sartor(*command, env={**os.environ, **variables})
    assert done.stdout == b""
    assert sorted(model.parent.iterdir()) == before
    (line,) = done.stderr.decode().splitlines()
    return done.returncode, line


def test_without_a_compiler(model: Path, sartor: RunSartor) -> None:
    code, line = refused(sartor, model, CC="/nonexistent", PATH="")
    assert code == 69
    library = model.with_name("fused.so")
    assert line == f"sartor fuse: error: {library}: a library takes a C compiler. Install gcc or clang, or set CC"


def test_a_compiler_that_fails(model: Path, tmp_path_factory: pytest.TempPathFactory, sartor: RunSartor) -> None:
    script = tmp_path_factory.mktemp("cc") / "broken-cc"
    script.write_text("#!/bin/sh\necho 'cannot find crt1.o' >&2\nexit 1\n")
    script.chmod(0o755)
    code, line = refused(sartor, model, CC=str(script))
    assert code == 69
    assert "broken-cc failed (cannot find crt1.o). Check that it links shared libraries, or set CC to another" in line


def test_wrong_use(model: Path, sartor: RunSartor) -> None:
    code, line = refused(sartor, model, "--dry-run")
    reason = "--dry-run writes nothing that a library fits. Leave out one of the two"
    assert (code, line) == (2, f"sartor fuse: error: {reason}")
    code, line = refused(sartor, model, "--require-single-kernel", "Gelu")
    assert code == 1
    target = model.with_name("fused.onnx")
    assert fuse(model, "-o", target, "--emit-library", "/proc/none/fused.so") == 73
    assert fuse(model, "--emit-library", "-") == 2


@needs_compiler
def test_our_session_is_as_before(model: Path) -> None:
    target, library = emitted(model)
    feed = feed_for(model)
    with_library = package.load(target).run(None, feed)[0]
    library.unlink()
    np.testing.assert_array_equal(package.load(target).run(None, feed)[0], with_library)
