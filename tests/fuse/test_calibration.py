"""Calibration: what is measured and kept, and what becomes of a file that is of no use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.kits.fuse_models import blocks, fuse, plan_of

from sartor.tools.fuse.calibrate import calibrate, measured
from sartor.tools.fuse.coefficients import (
    DEFAULTS,
    Calibration,
    CalibrationError,
    KernelRates,
    OtherProcessorError,
    caches_of,
    coefficients,
    described,
    finding,
    names,
    processor,
    read_calibration,
)
from sartor.tools.fuse.suite import SUITE

FEW = [sample for sample in SUITE if sample.name in ("add", "gelu", "row_sum", "softmax")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Calibration, str]:
    """Return a calibration to a few groups and the text of its file."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SARTOR_CACHE_DIR", str(folder))
        return calibrate(FEW, seconds=0.002), (folder / "calibration.json").read_text()


@pytest.fixture
def file(made: tuple[Calibration, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a calibration file in a cache of its own."""
    monkeypatch.setenv("SARTOR_CACHE_DIR", str(tmp_path))
    path = tmp_path / "calibration.json"
    path.write_text(made[1])
    return path


def changed(file: Path, **entries: Any) -> None:
    """Change entries of a calibration file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


def test_a_calibration_is_kept_and_read(made: tuple[Calibration, str], file: Path) -> None:
    calibration = made[0]
    assert read_calibration(file) == calibration
    assert coefficients() == calibration.coefficients
    assert calibration.coefficients.source == "calibrated"
    assert calibration.quality.samples == sum(len(sample.sizes) for sample in FEW)
    assert calibration.quality.rank_correlation > 0.8
    # What the groups do not tell stays as it ships.
    assert calibration.coefficients.kernel.gathered == DEFAULTS.kernel.gathered
    assert calibration.coefficients.kernel.fork == DEFAULTS.kernel.fork
    # Groups this few do not part what a call costs from what its arguments cost.
    assert calibration.coefficients.kernel.call + calibration.coefficients.kernel.argument > 0


def test_the_file_says_what_was_measured(file: Path) -> None:
    document = json.loads(file.read_text())
    assert list(document) == ["schema", "processor", "versions", "quality", "caches", "kernel", "stock"]
    assert document["processor"] == processor()
    assert set(document["versions"]) == {"sartor", "numba", "llvmlite", "onnxruntime"}
    assert tuple(document["kernel"]) == names(KernelRates)
    assert str(file.parent) not in file.read_text()


def test_without_a_file_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SARTOR_CACHE_DIR", str(tmp_path))
    assert coefficients() is DEFAULTS
    assert (finding().state, described()) == ("ok", {"coefficients": "defaults", "quality": None})


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"schema": 2}, "its schema is 2, not 1"),
        ({"kernel": {}}, "it is damaged"),
        ({"kernel": None}, "it is damaged"),
        ({"caches": {"l1": 1, "l2": 2, "l3": 0}}, "it is damaged"),
        ({"quality": {}}, "it is damaged"),
        ({"quality": {"kernel": {"samples": "many"}}}, "it is damaged"),
        ({"processor": "6502"}, "it is of another processor, 6502"),
    ],
)
def test_what_is_of_no_use(entries: dict[str, Any], reason: str, file: Path) -> None:
    changed(file, **entries)
    with pytest.raises(CalibrationError) as caught:
        read_calibration(file)
    assert str(caught.value) == reason
    assert isinstance(caught.value, OtherProcessorError) == ("processor" in entries)


@pytest.mark.parametrize("rate", [-1.0, float("nan"), float("inf"), "fast"])
def test_rates_are_finite_and_not_negative(rate: object, file: Path) -> None:
    changed(file, kernel={**json.loads(file.read_text())["kernel"], "light": rate})
    with pytest.raises(CalibrationError, match="it is damaged"):
        read_calibration(file)


def test_a_damaged_file_is_a_warning(file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import onnx

    onnx.save(blocks(), tmp_path / "net.onnx")
    document = plan_of(capfd, tmp_path / "net.onnx", "--no-measure")
    assert document["coefficients"] == "calibrated"
    file.write_bytes(file.read_bytes()[:100])
    assert fuse(tmp_path / "net.onnx", "--dry-run", "--no-measure", "--json") == 0
    out, err = capfd.readouterr()
    remedy = "Predictions use the defaults. Run sartor doctor --calibrate"
    assert err == f"sartor fuse: warning: {file}: it is damaged. {remedy}\n"
    assert json.loads(out)["coefficients"] == "defaults"
    assert (finding().state, described()["coefficients"]) == ("warning", "defaults")


def test_another_processor_is_a_note(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    changed(file, processor="6502")
    assert coefficients() is DEFAULTS
    note = f"{file}: it is of another processor, 6502. Predictions use the defaults. Run sartor doctor --calibrate\n"
    assert capfd.readouterr().err == note
    assert finding().state == "ok"


def test_doctor_tells(file: Path) -> None:
    assert finding().value.startswith(f"calibrated on {sum(len(sample.sizes) for sample in FEW)} samples, rank correl")
    assert described()["coefficients"] == "calibrated"
    assert set(described()["quality"]) == {"kernel", "onnxruntime"}


def test_sizes_of_caches_are_read(tmp_path: Path) -> None:
    for index, (level, kind, size) in enumerate(
        [("1", "Data", "32K"), ("1", "Instruction", "64K"), ("2", "Unified", "512K")]
    ):
        (tmp_path / f"index{index}").mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (tmp_path / f"index{index}" / name).write_text(f"{text}\n")
    found = caches_of(tmp_path)
    assert (found.l1, found.l2, found.l3) == (32 << 10, 512 << 10, DEFAULTS.caches.l3)


def test_each_group_of_the_suite_runs_as_a_kernel() -> None:
    for sample in SUITE:
        (point,) = measured(type(sample)(sample.name, sample.inputs, sample.body, sample.sizes[:1]), seconds=0.001)
        assert 0 < point.kernel_us < 1e5
        assert 0 < point.stock_us < 1e5
