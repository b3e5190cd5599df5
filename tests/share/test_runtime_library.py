"""The custom-op library: how it is built, how it divides work, and that it lets go of everything."""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tests.kits import runtime_kit as kit

from sartor.share.errors import UsageError
from sartor.share.runtime import kernels_of, library, load, registry
from sartor.share.runtime.kernel import FunctionCall, Kernel

CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int64,
    *[ctypes.POINTER(ctypes.c_void_p)] * 2,
    *[ctypes.POINTER(ctypes.c_int64)] * 2,
    *[ctypes.c_int64] * 2,
)
needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler")


class Code:
    """Stands for the machine code of a kernel."""


@pytest.fixture(autouse=True)
def executor() -> Iterator[None]:
    """Register the hand-written kernels."""
    registry.register(kit.DOMAIN, kit.executor)
    yield
    registry.unregister(kit.DOMAIN)


@pytest.fixture
def opened() -> ctypes.CDLL:
    """Return the library."""
    path = library.library_path()
    if path is None:
        pytest.skip(library.library_status())
    return library.load_library(path)


def owned_by(code: object) -> None:
    """Let the kernels belong to an object whose life a test watches."""

    def make(call: FunctionCall) -> Kernel | None:
        kernel = kit.executor(call)
        return kernel and Kernel(kernel.domain, kernel.name, kernel.address, kernel.inputs, kernel.outputs, code)

    registry.register(kit.DOMAIN, make)


def built(environ: Mapping[str, str]) -> str:
    """Build and open the library in a process of its own and return its path."""
    program = "from sartor.share.runtime import library as l; p = l.library_path(); l.load_library(p); print(p)"
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("runtime", ["library", "segments"])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(
    ("tasks", "task_bytes"), [(1, 10**7), (2, 10**6), (63, 9000), (1000, 10), (1000, 3000), (0, 8)]
)
def test_every_task_runs_exactly_once(
    runtime: str, threads: int, tasks: int, task_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if runtime == "library" and library.library_path() is None:
        pytest.skip(library.library_status())
    ranges: list[tuple[int, int]] = []
    scratches: dict[int, set[int]] = {}

    def kernel(inputs: object, outputs: object, dims: object, scratch: ctypes._Pointer, begin: int, end: int) -> int:
        if begin == -1:
            scratch[0], scratch[1], scratch[2], scratch[3] = tasks, 1000, tasks * task_bytes, 5
            return 0
        ranges.append((begin, end))
        scratches.setdefault(ctypes.addressof(scratch.contents), set()).add(threading.get_native_id())
        return 0

    code = CALLBACK(kernel)
    address = ctypes.cast(code, ctypes.c_void_p).value or 0
    registry.register(kit.DOMAIN, lambda call: Kernel(kit.DOMAIN, "g_fail", address, call.inputs, call.outputs, code))
    monkeypatch.setenv("SARTOR_RUNTIME", runtime)
    proto = kit.model([kit.call("g_fail", ["x"], ["y"])], [kit.info("x", ["n"])], [kit.info("y", ["n"])])
    session = load(proto.SerializeToString(), threads=threads)
    assert session.run(None, {"x": np.zeros(3, np.float32)})[0].shape == (5,)
    assert sorted(i for begin, end in ranges for i in range(begin, end)) == list(range(tasks))
    assert all(begin < end for begin, end in ranges)
    least = 2**17 if runtime == "library" else 2**20
    assert (len(ranges) > 1) == (threads > 1 and tasks > 1 and tasks * task_bytes > least)
    assert all(address % 64 == 0 for address in scratches)
    assert all(len(users) == 1 for users in scratches.values())


@pytest.mark.parametrize("runtime", ["library", "segments"])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("work", [10, 10**6])
@pytest.mark.parametrize("slices", [1, 3, 7])
def test_phases_follow_one_another(
    runtime: str, threads: int, work: int, slices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task finds those of its slice in all phases before it done; all tasks get the same memory."""
    if runtime == "library" and library.library_path() is None:
        pytest.skip(library.library_status())
    counts = [5 * slices, slices, 0, 64 * slices]
    where = [(phase, task * slices // count) for phase, count in enumerate(counts) for task in range(count)]
    before = [{t for t, (p, s) in enumerate(where) if p < phase and s == own} for phase, own in where]
    done: list[int] = []
    early: list[int] = []
    shared: set[int | None] = set()

    def kernel(
        inputs: object, outputs: ctypes._Pointer, dims: object, plan: ctypes._Pointer, begin: int, end: int
    ) -> int:
        if begin == -1:
            facts = [len(where), 0, 4 * work, 5, 1000, slices, *(n for count in counts for n in (count, work))]
            for i, fact in enumerate(facts):
                plan[i] = fact
            return 0
        shared.add(outputs[1])
        early.extend(task for task in range(begin, end) if not before[task] <= set(done))
        done.extend(range(begin, end))
        return 0

    code = CALLBACK(kernel)
    address = ctypes.cast(code, ctypes.c_void_p).value or 0
    registry.register(
        kit.DOMAIN,
        lambda call: Kernel(kit.DOMAIN, "g_fail", address, call.inputs, call.outputs, code, phases=len(counts)),
    )
    monkeypatch.setenv("SARTOR_RUNTIME", runtime)
    proto = kit.model([kit.call("g_fail", ["x"], ["y"])], [kit.info("x", ["n"])], [kit.info("y", ["n"])])
    session = load(proto.SerializeToString(), threads=threads)
    assert session.run(None, {"x": np.zeros(3, np.float32)})[0].shape == (5,)
    assert (sorted(done), early) == (list(range(len(where))), [])
    (memory,) = shared
    assert memory
    assert memory % 64 == 0


def test_scratch_memory_grows_and_belongs_to_one_thread(opened: ctypes.CDLL) -> None:
    session = load(
        kit.model(
            [kit.call("g_rows", ["x"], ["y"])], [kit.info("x", ["b", "n"])], [kit.info("y", ["b"])]
        ).SerializeToString(),
        threads=2,
    )
    for width in (1, 5000, 3, 100_000):
        x = np.ones((64, width), np.float32)
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], np.full(64, width + kit.MARK))


def test_code_lives_as_long_as_its_session(opened: ctypes.CDLL) -> None:
    code = Code()
    watch = weakref.ref(code)
    owned_by(code)
    session = load(kit.chain(2).SerializeToString())
    registry.register(kit.DOMAIN, kit.executor)
    del code
    gc.collect()
    assert watch() is not None
    before = opened.sartor_live()
    del session
    assert watch() is None
    assert opened.sartor_live() == before - 1


def test_code_outlives_a_session_that_a_binding_uses(opened: ctypes.CDLL) -> None:
    code = Code()
    watch = weakref.ref(code)
    owned_by(code)
    session = load(kit.chain(2).SerializeToString())
    registry.register(kit.DOMAIN, kit.executor)
    del code
    binding, inner = session.io_binding(), session._sess
    x = np.ones((2, 3), np.float32)
    binding.bind_cpu_input("x", x)
    binding.bind_cpu_input("y", x)
    binding.bind_output("z")
    del session
    gc.collect()
    assert watch() is not None
    inner.run_with_iobinding(binding._iobinding, None)
    np.testing.assert_array_equal(binding.copy_outputs_to_cpu()[0], 3 * x + 2 * kit.MARK)
    del binding, inner
    load(kit.chain(1).SerializeToString())
    assert watch() is None


def test_a_session_in_a_reference_cycle_is_freed(opened: ctypes.CDLL) -> None:
    before = opened.sartor_live()
    for _ in range(5):
        session = load(kit.chain(2).SerializeToString())
        session.me = session
    del session
    gc.collect()
    load(kit.chain(1).SerializeToString())
    assert opened.sartor_live() == before


def test_a_kernel_that_onnxruntime_refuses_leaves_the_body(
    opened: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = opened.sartor_live()
    monkeypatch.setattr("sartor.share.runtime.operators._element_types", lambda kernel, defaults: (1, 1, 7))
    x = np.ones((2, 3), np.float32)
    with pytest.warns(RuntimeWarning, match="runs without kernels"):
        session = load(kit.chain(1).SerializeToString())
    np.testing.assert_array_equal(session.run(None, {"x": x, "y": x})[0], 2 * x)
    assert kernels_of(session) == ()
    gc.collect()
    assert opened.sartor_live() == before


def test_an_unknown_runtime_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SARTOR_RUNTIME", "magic")
    with pytest.raises(UsageError, match="SARTOR_RUNTIME=magic: not a runtime"):
        library.library_path()


def test_without_a_compiler_there_is_no_library(tmp_path: Path) -> None:
    environ = os.environ | {"CC": "/nonexistent", "PATH": "", "SARTOR_CACHE_DIR": str(tmp_path)}
    program = "from sartor.share.runtime import library as l; print(l.library_path(), '|', l.library_status())"
    result = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "None | no C compiler: segments are used"


@needs_compiler
def test_what_one_node_built_serves_another_without_a_compiler(tmp_path: Path) -> None:
    environ = os.environ | {"SARTOR_CACHE_DIR": str(tmp_path)}
    path = built(environ)
    assert built(environ | {"CC": "/nonexistent", "PATH": ""}) == path


@needs_compiler
def test_a_compiler_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "broken-cc"
    script.write_text("#!/bin/sh\necho 'cannot find crt1.o' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    monkeypatch.setenv("SARTOR_CACHE_DIR", str(tmp_path / "cache"))
    assert library.library_path() is None
    assert "broken-cc failed (cannot find crt1.o): segments are used" in library.library_status()


@needs_compiler
@pytest.mark.parametrize("size", [0, 1000, -100])
def test_a_damaged_library_is_built_again(tmp_path: Path, size: int) -> None:
    environ = os.environ | {"SARTOR_CACHE_DIR": str(tmp_path)}
    path = Path(built(environ))
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    assert Path(built(environ)) == path
    assert path.read_bytes() == whole


@needs_compiler
def test_processes_that_build_at_once_agree(tmp_path: Path) -> None:
    environ = os.environ | {"SARTOR_CACHE_DIR": str(tmp_path)}
    with ThreadPoolExecutor(3) as pool:
        paths = list(pool.map(built, [environ] * 3))
    assert all(Path(path).is_relative_to(tmp_path) for path in paths)
    assert not list(tmp_path.glob(".*"))


@needs_compiler
def test_the_source_compiles_without_warnings(tmp_path: Path) -> None:
    source = Path(library.__file__).with_name("ops.c")
    command = ["cc", *library._FLAGS, "-Wall", "-Wextra", "-Werror", "-o", tmp_path / "ops.so", source]
    subprocess.run(command, check=True)
