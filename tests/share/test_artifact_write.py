"""Atomic writing: targets of every kind, failures, and models with and without external data."""

from __future__ import annotations

import errno
import io
import os
import re
import resource
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from sartor.share.artifact import atomic, check_target, quickcheck, read_model, write_bytes, write_model
from sartor.share.errors import OutputError, UsageError, WriteError


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(".part"))


def test_content_replaces_the_target_and_follows_the_umask(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    before = os.umask(0o027)
    try:
        write_bytes(b"new", target)
    finally:
        os.umask(before)
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_failing_block_leaves_the_old_file(error: type[BaseException], tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")

    def write_half() -> None:
        with atomic(target) as file:
            file.write(b"x" * 100_000)
            assert len(leftovers(tmp_path)) == 1
            raise error

    with pytest.raises(error):
        write_half()
    assert target.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


def test_the_temporary_file_is_named_after_the_target(tmp_path: Path) -> None:
    with atomic(tmp_path / "net.onnx") as file:
        file.write(b"x")
        assert re.fullmatch(r"\.net\.onnx\.[0-9a-f]{16}\.part", leftovers(tmp_path)[0])


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    link = tmp_path / "link"
    link.symlink_to("sub/real")
    for content in (b"first", b"second"):
        write_bytes(content, link)
        assert link.is_symlink()
        assert (tmp_path / "sub" / "real").read_bytes() == content


def test_a_hard_link_keeps_its_content(tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"old")
    os.link(tmp_path / "input", tmp_path / "out")
    write_bytes(b"new", tmp_path / "out")
    assert (tmp_path / "input").read_bytes() == b"old"


def test_devices_and_pipes_are_written_straight(tmp_path: Path) -> None:
    write_bytes(b"x", "/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    write_bytes(b"x" * 200_000, pipe)
    reader.join()
    assert received == [b"x" * 200_000]
    assert leftovers(tmp_path) == []


def test_a_full_device_is_a_write_error() -> None:
    with pytest.raises(WriteError) as caught:
        write_bytes(b"x" * 100_000, "/dev/full")
    assert caught.value.exit_code == 74
    assert str(caught.value) == (
        "/dev/full: writing failed (no space left on device). Free some space, or write elsewhere"
    )


def test_a_file_that_grows_too_large_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(WriteError) as caught:
            write_bytes(b"x" * 100_000, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value) == f"{target}: writing failed (file too large). Free some space, or write elsewhere"
    assert target.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


def test_a_reader_that_goes_away_is_a_write_error(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    def write_slowly() -> None:
        with atomic(pipe) as file:
            os.close(reader)
            file.write(b"x" * 100_000)

    with pytest.raises(WriteError) as caught:
        write_slowly()
    assert str(caught.value) == (f"{pipe}: writing failed (broken pipe). Check the disk or the reader, and write again")


def test_targets_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cases = {
        tmp_path: "this is a folder. Name a file",
        tmp_path / "no" / "out": f"there is no folder {str(tmp_path / 'no')!r}. Create it first",
        tmp_path / "file" / "out": f"there is no folder {str(tmp_path / 'file')!r}. Create it first",
        # Read-only for root too.
        Path("/proc/out"): "it can't be created (no such file or directory). Write to another folder",
    }
    for target, reason in cases.items():
        for attempt in (lambda path: write_bytes(b"x", path), check_target):
            with pytest.raises(OutputError) as caught:
                attempt(target)
            assert caught.value.exit_code == 73
            assert str(caught.value) == f"{target}: {reason}"


@pytest.mark.skipif(not os.path.isdir("/sys/kernel"), reason="needs sysfs, which is read-only for root too")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"^/sys/kernel/out: it can't be created \(.+\)\. Write to another folder$"):
        write_bytes(b"x", "/sys/kernel/out")


def test_check_target_leaves_nothing(tmp_path: Path) -> None:
    check_target(tmp_path / "out")
    check_target("/dev/null")
    assert list(tmp_path.iterdir()) == []


def test_old_leftovers_go_with_the_next_write(tmp_path: Path) -> None:
    names = {
        "old": ".out.0123456789abcdef.part",
        "young": ".out.fedcba9876543210.part",
        "of another": ".out2.0123456789abcdef.part",
        "of another kind": ".out.backup.part",
    }
    for age, name in names.items():
        (tmp_path / name).write_bytes(b"")
        if age != "young":
            os.utime(tmp_path / name, (time.time() - 4000,) * 2)
    write_bytes(b"x", tmp_path / "out")
    assert leftovers(tmp_path) == sorted(name for age, name in names.items() if age != "old")


class FakeOutput(io.TextIOWrapper):
    """Standard output into memory, a terminal or not."""

    def __init__(self, terminal: bool = False, raw: io.RawIOBase | None = None) -> None:
        self.content = io.BytesIO()
        super().__init__(io.BufferedWriter(raw) if raw else self.content)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


class FailingRaw(io.RawIOBase):
    """A raw file whose writes fail with a given error."""

    def __init__(self, number: int) -> None:
        self._number = number

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        raise OSError(self._number, os.strerror(self._number))


def test_standard_output(monkeypatch: pytest.MonkeyPatch, small_model: Path) -> None:
    output = FakeOutput()
    monkeypatch.setattr("sys.stdout", output)
    write_model(read_model(small_model).ir, "-")
    assert onnx.load_from_string(output.content.getvalue()).graph.name == "small"


def test_a_terminal_takes_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for attempt in (lambda: write_bytes(b"x", "-"), lambda: check_target("-")):
        monkeypatch.setattr("sys.stdout", FakeOutput(terminal=True))
        with pytest.raises(UsageError) as caught:
            attempt()
        assert caught.value.exit_code == 2
        assert str(caught.value) == (
            "standard output: binary data does not go to a terminal. Name a file with -o, or pipe it on"
        )
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(OutputError, match=r"^standard output: it is closed\. Name a file with -o$"):
        write_bytes(b"x", "-")


def test_failing_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", FakeOutput(raw=FailingRaw(errno.EPIPE)))
    with pytest.raises(BrokenPipeError):
        write_bytes(b"x", "-")
    monkeypatch.setattr("sys.stdout", FakeOutput(raw=FailingRaw(errno.ENOSPC)))
    with pytest.raises(WriteError, match=r"^standard output: writing failed \(no space left on device\)\."):
        write_bytes(b"x", "-")


def weights(model: ir.Model) -> dict[str, np.ndarray]:
    return {
        name: value.const_value.numpy().copy()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }


def test_the_same_model_gives_the_same_bytes(tmp_path: Path, small_model: Path) -> None:
    write_model(read_model(small_model).ir, tmp_path / "a.onnx")
    write_model(read_model(tmp_path / "a.onnx").ir, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    onnx.checker.check_model(tmp_path / "a.onnx")


def test_tensor_metadata_does_not_multiply(tmp_path: Path, small_proto: onnx.ModelProto) -> None:
    for key in ("b", "a"):
        small_proto.graph.initializer[0].metadata_props.add(key=key, value="1")
    path = tmp_path / "net.onnx"
    path.write_bytes(small_proto.SerializeToString())
    for _ in range(3):
        write_model(read_model(path).ir, path)
    assert [entry.key for entry in onnx.load(path).graph.initializer[0].metadata_props] == ["a", "b"]


def test_external_data_below_the_limit_goes_inside(tmp_path: Path, external_model: Callable[..., Path]) -> None:
    model = read_model(external_model())
    write_model(model.ir, tmp_path / "out.onnx")
    out = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    assert [len(tensor.external_data) for tensor in out.graph.initializer] == [0, 0]
    assert np.array_equal(weights(read_model(tmp_path / "out.onnx").ir)["weight"], weights(model.ir)["weight"])
    tensor = model.ir.graph.initializers["weight"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    assert tensor.location == "net.data"


def test_external_constants_go_inside(tmp_path: Path, small_proto: onnx.ModelProto) -> None:
    constant = small_proto.graph.node[3].attribute[0].t
    (tmp_path / "flag.data").write_bytes(constant.raw_data)
    constant.ClearField("raw_data")
    constant.data_location = onnx.TensorProto.EXTERNAL
    constant.external_data.add(key="location", value="flag.data")
    path = tmp_path / "net.onnx"
    path.write_bytes(small_proto.SerializeToString())
    model = read_model(path)
    assert model.data_files == (tmp_path / "flag.data",)
    write_model(model.ir, tmp_path / "out.onnx")
    out = onnx.load(tmp_path / "out.onnx", load_external_data=False).graph.node[3].attribute[0].t
    assert (out.raw_data, len(out.external_data)) == (b"\x01", 0)


def test_data_above_the_limit_goes_to_one_file(tmp_path: Path, model_of_size: Callable[[str, int, int], Path]) -> None:
    source = read_model(model_of_size("net.onnx", 2, 7))
    target = tmp_path / "out.onnx"
    write_model(source.ir, target, external_above=1 << 20)
    data = list(tmp_path.glob("out.*.data"))
    assert len(data) == 1
    assert re.fullmatch(r"out\.[0-9a-f]{12}\.data", data[0].name)
    assert target.stat().st_size < 10_000
    again = read_model(target)
    assert again.data_files == (data[0],)
    assert np.array_equal(weights(again.ir)["weight"], weights(source.ir)["weight"])
    onnx.checker.check_model(target)
    assert quickcheck(target) is None
    first = (target.read_bytes(), data[0].read_bytes())
    write_model(again.ir, target, external_above=1 << 20)
    assert (target.read_bytes(), data[0].read_bytes()) == first
    assert list(tmp_path.glob("out.*.data")) == data
    assert leftovers(tmp_path) == []


def test_a_damaged_data_file_of_the_same_name_is_rewritten(
    tmp_path: Path, model_of_size: Callable[[str, int, int], Path]
) -> None:
    model = read_model(model_of_size("net.onnx", 2, 7)).ir
    write_model(model, tmp_path / "out.onnx", external_above=1 << 20)
    data = next(tmp_path.glob("out.*.data"))
    content = data.read_bytes()
    data.write_bytes(bytes(len(content)))
    write_model(model, tmp_path / "out.onnx", external_above=1 << 20)
    assert data.read_bytes() == content


def test_writing_over_the_mapped_input_keeps_it_readable(
    tmp_path: Path, model_of_size: Callable[[str, int, int], Path]
) -> None:
    path = model_of_size("net.onnx", 2, 7)
    write_model(read_model(path).ir, path, external_above=1 << 20)
    old_data = next(tmp_path.glob("net.*.data"))
    model = read_model(path).ir
    mapped = model.graph.initializers["weight"].const_value
    assert isinstance(mapped, ir.ExternalTensor)
    before = mapped.numpy()
    model.graph.initializers["weight"].const_value = ir.tensor(before + 1, name="weight")
    write_model(model, path, external_above=1 << 20)
    assert (before == 7).all()
    assert old_data.exists()
    assert (weights(read_model(path).ir)["weight"] == 8).all()


def test_tied_weights_are_stored_once(tmp_path: Path, model_of_size: Callable[[str, int, int], Path]) -> None:
    path = model_of_size("net.onnx", 2, 7)
    proto = onnx.load(path)
    proto.graph.initializer.add().CopyFrom(proto.graph.initializer[0])
    proto.graph.initializer[-1].name = "tied"
    path.write_bytes(proto.SerializeToString())
    model = read_model(path).ir
    model.graph.initializers["tied"].const_value = model.graph.initializers["weight"].const_value
    write_model(model, tmp_path / "out.onnx", external_above=1 << 20)
    write_model(read_model(tmp_path / "out.onnx").ir, tmp_path / "again.onnx", external_above=1 << 20)
    for data in (*tmp_path.glob("out.*.data"), *tmp_path.glob("again.*.data")):
        assert data.stat().st_size == 2 << 20
    read = weights(read_model(tmp_path / "again.onnx").ir)
    assert np.array_equal(read["tied"], read["weight"])


def test_large_data_needs_a_file(
    monkeypatch: pytest.MonkeyPatch, model_of_size: Callable[[str, int, int], Path]
) -> None:
    model = read_model(model_of_size("net.onnx", 2, 7)).ir
    monkeypatch.setattr("sys.stdout", FakeOutput())
    reason = "the model is so large that its data needs a file of its own. Name a file with -o"
    for target, subject in (("-", "standard output"), ("/dev/null", "/dev/null")):
        with pytest.raises(OutputError) as caught:
            write_model(model, target, external_above=1 << 20)
        assert str(caught.value) == f"{subject}: {reason}"


def test_a_failure_after_the_data_leaves_neither_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_of_size: Callable[[str, int, int], Path]
) -> None:
    path = model_of_size("net.onnx", 2, 7)
    old = path.read_bytes()
    model = read_model(path).ir
    replace = os.replace

    def fail_for_the_model(source: Path, target: Path) -> None:
        if target.suffix == ".onnx":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        replace(source, target)

    monkeypatch.setattr("os.replace", fail_for_the_model)
    with pytest.raises(WriteError, match="input/output error"):
        write_model(model, path, external_above=1 << 20)
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]
    assert path.read_bytes() == old
