"""Facts about devices, and refusal of those that are missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sartor.share import device
from sartor.share.device import Gpu, devices, parse_cpuinfo, parse_gpus, require
from sartor.share.errors import UnavailableError, UsageError

X86 = "processor\t: 0\nmodel name\t: AMD EPYC: 9\nflags\t\t: fpu avx2 fma\n\nprocessor\t: 1\nmodel name\t: other\n"


def fake_nvidia_smi(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a shell script named nvidia-smi first on the path."""
    script = folder / "nvidia-smi"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_cpu_of_this_machine() -> None:
    cpu = devices().cpu
    assert cpu.model
    assert 1 <= len(cpu.affinity) <= cpu.cores
    assert set(cpu.features) <= set(parse_cpuinfo(Path("/proc/cpuinfo").read_text())["flags"].split())


def test_cpuinfo_is_read_for_one_processor() -> None:
    assert parse_cpuinfo(X86) == {"processor": "0", "model name": "AMD EPYC: 9", "flags": "fpu avx2 fma"}


def test_gpus_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path, 'echo "0, NVIDIA H100 80GB HBM3, 81559, 9.0, 550.54.15"', monkeypatch)
    found = devices()
    assert found.gpus == (Gpu(0, "NVIDIA H100 80GB HBM3", 81559, "9.0", "550.54.15"),)
    assert found.gpu_problem == ""


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("echo 'NVIDIA-SMI has failed'; exit 9", "NVIDIA-SMI has failed"),
        ("exit 9", "nvidia-smi exits with 9"),
        ("echo 'no table at all'", "nvidia-smi: "),
        ("sleep 5", "nvidia-smi: "),
    ],
)
def test_a_driver_in_trouble_is_reported(
    body: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_QUERY_SECONDS", 0.5)
    fake_nvidia_smi(tmp_path, body, monkeypatch)
    found = devices()
    assert found.gpus == ()
    assert found.gpu_problem.startswith(problem)


def test_no_driver_is_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (devices().gpus, devices().gpu_problem) == ((), "")


def test_table_of_gpus() -> None:
    assert parse_gpus("") == ()
    with pytest.raises(ValueError, match=r"invalid literal|could not convert"):
        parse_gpus("0, NVIDIA GB10, [N/A], 12.1, 580.1")


def test_cpu_is_always_there() -> None:
    require("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", ""])
def test_unknown_devices_are_refused(name: str) -> None:
    with pytest.raises(UsageError) as refusal:
        require(name)
    assert str(refusal.value) == f"device {name}: no such device. Use cpu, cuda or cuda:N"


@pytest.mark.parametrize(("usable", "name"), [(0, "cuda"), (0, "cuda:0"), (1, "cuda:1")])
def test_missing_gpus_are_refused(usable: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_usable_gpus", lambda: usable)
    with pytest.raises(UnavailableError) as refusal:
        require(name)
    expected = (
        f"device {name}: this installation can use {usable} CUDA devices. Use the device cpu or see `sartor doctor`"
    )
    assert str(refusal.value) == expected
    assert refusal.value.exit_code == 69


def test_present_gpus_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_usable_gpus", lambda: 2)
    require("cuda")
    require("cuda:1")
