"""The kernel cache: what goes in comes out or is gone, whatever happens to the disk."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sartor.share import cache


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the cache into a folder of its own."""
    monkeypatch.setenv("SARTOR_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def forget(monkeypatch: pytest.MonkeyPatch, **environ: str) -> None:
    """Replace the variables that say where the cache lies."""
    for name in ("SARTOR_CACHE_DIR", "XDG_CACHE_HOME", "SLURM_JOB_ID", "SLURM_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 1000])
def test_bytes_come_back(data: bytes) -> None:
    assert cache.get("k_1.o") is None
    cache.put("k_1.o", data)
    assert cache.get("k_1.o") == data


@pytest.mark.parametrize("at", [0, 5, 50, -1])
def test_a_flipped_bit_reads_as_nothing_and_is_rewritten(folder: Path, at: int) -> None:
    cache.put("k_1.o", b"a" * 100)
    stored = bytearray((folder / "k_1.o").read_bytes())
    stored[at] ^= 4
    (folder / "k_1.o").write_bytes(stored)
    assert cache.get("k_1.o") is None
    cache.put("k_1.o", b"a" * 100)
    assert cache.get("k_1.o") == b"a" * 100


@pytest.mark.parametrize("size", [0, 1, 31, 32, 131])
def test_a_truncated_entry_reads_as_nothing(folder: Path, size: int) -> None:
    cache.put("k_1.o", b"a" * 100)
    os.truncate(folder / "k_1.o", size)
    assert cache.get("k_1.o") is None


def test_files_lie_on_the_disk_as_they_are() -> None:
    assert cache.path_of("lib.so") is None
    path = cache.put_file("lib.so", b"machine code")
    assert path is not None
    assert path.suffix == ".so"
    assert path.read_bytes() == b"machine code"
    assert cache.path_of("lib.so") == path
    path.write_bytes(b"machine c0de")
    assert cache.path_of("lib.so") is None
    path.unlink()
    assert cache.path_of("lib.so") is None


@pytest.mark.parametrize("name", ["", "../k", "a/b", ".hidden", "nul\0"])
def test_names_stay_inside(name: str) -> None:
    with pytest.raises(ValueError, match="not a cache name"):
        cache.put(name, b"")


def test_processes_may_fill_it_at_once(folder: Path) -> None:
    program = (
        "import sys; from sartor.share import cache\n"
        "data = bytes([int(sys.argv[1])]) * 300_000\n"
        "for i in range(60):\n"
        "    cache.put('k_1.o', data)\n"
        "    found = cache.get('k_1.o')\n"
        "    assert found is not None and len(found) == 300_000 and len(set(found)) == 1, i\n"
    )

    def fill(seed: int) -> int:
        return subprocess.run([sys.executable, "-c", program, str(seed)], check=False).returncode

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(fill, range(3))) == [0, 0, 0]
    assert [path.name for path in folder.iterdir()] == ["k_1.o"]


def test_the_order_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch, HOME=str(tmp_path))
    assert cache.cache_dir() == tmp_path / ".cache" / "sartor"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.cache_dir() == tmp_path / ".cache" / "sartor"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_dir() == tmp_path / "xdg" / "sartor"
    monkeypatch.setenv("SARTOR_CACHE_DIR", str(tmp_path / "own"))
    assert cache.cache_dir() == tmp_path / "own"


@pytest.mark.parametrize("variable", ["SLURM_TMPDIR", "TMPDIR"])
def test_under_slurm_home_is_left_alone(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = tmp_path / "local"
    local.mkdir()
    forget(monkeypatch, HOME=str(tmp_path), SLURM_JOB_ID="1", **{variable: str(local)})
    folder = cache.cache_dir()
    assert folder == local / f"sartor-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / ".cache").exists()


@pytest.mark.parametrize("kind", ["others write", "link"])
def test_a_folder_that_others_prepared_is_not_used(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch, SLURM_JOB_ID="1", TMPDIR=str(tmp_path))
    trap = tmp_path / f"sartor-{os.getuid()}"
    if kind == "link":
        (tmp_path / "elsewhere").mkdir()
        trap.symlink_to(tmp_path / "elsewhere")
    else:
        trap.mkdir()
        trap.chmod(0o777)
    with pytest.warns(RuntimeWarning, match="belongs to somebody else or lets others write"):
        cache.put("k_1.o", b"data")
    assert cache.get("k_1.o") == b"data"
    assert not list(trap.iterdir())


def test_an_unusable_place_costs_one_warning_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    program = (
        "from sartor.share import cache\n"
        "cache.put('k_1.o', b'data'); assert cache.get('k_1.o') == b'data'\n"
        "assert cache.path_of('l.so') is None; assert cache.put_file('l.so', b'x') == cache.path_of('l.so')\n"
        "print(cache.cache_dir())"
    )
    environ = os.environ | {"SARTOR_CACHE_DIR": str(tmp_path / "file" / "cache")}
    result = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert result.stderr.count("RuntimeWarning") == 1
    assert "cannot be created (Not a directory)" in result.stderr
    assert not Path(result.stdout.strip()).exists()


def test_a_full_disk_costs_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "_write", full)
    with pytest.warns(RuntimeWarning, match=r"cannot keep k_1.o \(No space left on device\)"):
        cache.put("k_1.o", b"data")
    with pytest.warns(RuntimeWarning, match="cannot keep l.so"):
        assert cache.put_file("l.so", b"data") is None
