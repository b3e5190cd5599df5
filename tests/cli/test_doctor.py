"""`sartor doctor`: facts, warnings and what counts as broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sartor import __version__
from sartor.share import doctor
from sartor.share.doctor import Cache, Diagnosis, Finding
from sartor.share.errors import GoalNotMetError
from sartor.share.mounts import Mount, mount_of, parse_mounts

if TYPE_CHECKING:
    from tests.conftest import RunSartor

MOUNTINFO = r"""22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /home rw - nfs4 server:/home rw,vers=4.2
24 23 0:22 / /home/a\040b rw shared:7 master:1 - lustre mds@tcp:/scratch rw
25 22 0:23 / /tmp rw - ext4 /dev/sda2 rw
26 22 0:24 / /tmp rw - tmpfs tmpfs rw
"""


def test_json_document(sartor: RunSartor) -> None:
    done = sartor("doctor", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    document = json.loads(done.stdout)
    assert document.keys() == {"schema", "healthy", "devices", "caches", "findings", "cost_model"}
    assert document["cost_model"] == {"coefficients": "defaults", "quality": None}
    assert document["schema"] == 1
    assert document["healthy"] is True
    assert document["devices"]["cpu"]["affinity"] == sorted(os.sched_getaffinity(0))
    assert [cache["name"] for cache in document["caches"]] == ["kernels", "triton"]
    assert all(set(finding) == {"section", "name", "value", "state", "advice"} for finding in document["findings"])
    values = {finding["name"]: finding["value"] for finding in document["findings"]}
    assert values["sartor"] == __version__
    assert values["onnxruntime"] == metadata.version("onnxruntime")


def test_people_read_stderr(sartor: RunSartor) -> None:
    done = sartor("doctor")
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"onnxruntime library" in done.stderr


def test_works_without_a_compiler(sartor: RunSartor, tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path), "CC": "", "SARTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = sartor("doctor", "--json", env=environment)
    assert done.returncode == 0
    states = {finding["name"]: finding["state"] for finding in json.loads(done.stdout)["findings"]}
    assert states["cc"] == "warning"
    assert states["onnxruntime library"] == "warning"


def test_missing_dependency_is_broken() -> None:
    finding = doctor.dependency_finding("sartor-absent-dependency", ">=1")
    assert finding.state == "broken"
    assert "pip install 'sartor-absent-dependency>=1'" in finding.advice


def test_modules_that_do_not_import_are_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sartor_unfit_module.py").write_text("raise OSError('libgomp.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    findings = list(doctor.import_findings(("json", "sartor_unfit_module", "sartor_absent_module")))
    assert [finding.state for finding in findings] == ["broken", "broken"]
    assert findings[0].value == "OSError: libgomp.so.1: cannot open shared object file"
    assert findings[1].name == "import sartor_absent_module"


def test_version_outside_the_range_is_a_warning() -> None:
    assert doctor.dependency_finding("numpy", ">=99").state == "warning"
    assert doctor.dependency_finding("numpy", ">=1").state == "ok"


def test_broken_exits_with_1(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    code = "import sys; from sartor.cli.main import run; sys.exit(run(['doctor']))"
    environment = {**os.environ, "TRITON_CACHE_DIR": str(blocked)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    last = "sartor doctor: error: broken: triton. Set TRITON_CACHE_DIR to a writable folder on a local disk"
    assert done.stderr.splitlines()[-1] == last


def test_survives_a_missing_package() -> None:
    hidden = "import sys; sys.modules['onnx_ir'] = None"
    code = f"{hidden}; from sartor.cli.main import run; sys.exit(run(['doctor', '--json']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["healthy"] is False
    broken = {finding["name"] for finding in document["findings"] if finding["state"] == "broken"}
    assert "import onnx_ir" in broken


def test_require_healthy() -> None:
    devices = doctor.devices()
    warning = Finding("a", "b", "c", "warning", "d")
    doctor.require_healthy(Diagnosis(devices, (), (warning,)))
    with pytest.raises(GoalNotMetError, match=r"broken: x\. Do it"):
        doctor.require_healthy(Diagnosis(devices, (), (warning, Finding("a", "x", "", "broken", "Do it"))))


def test_mounts() -> None:
    mounts = parse_mounts(MOUNTINFO)
    cases = {"/etc": "ext4", "/home/x": "nfs4", "/home/a b/c": "lustre", "/homes": "ext4", "/tmp/x": "tmpfs"}
    found = {path: mount_of(Path(path), mounts) for path in cases}
    assert {path: mount.kind for path, mount in found.items() if mount} == cases
    assert {path for path, mount in found.items() if mount and mount.over_network} == {"/home/x", "/home/a b/c"}


def test_the_real_mount_table_covers_the_root() -> None:
    mounts = parse_mounts(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))
    root = mount_of(Path("/"), mounts)
    assert root is not None
    assert root.point == Path("/")


@pytest.mark.parametrize(
    ("writable", "over_network", "state"),
    [(True, False, "ok"), (True, True, "warning"), (False, False, "broken"), (False, True, "broken")],
)
def test_cache_is_judged(writable: bool, over_network: bool, state: str) -> None:
    finding = doctor.cache_finding(Cache("kernels", "/c", 2**20, writable, "nfs", over_network))
    assert finding.state == state
    assert bool(finding.advice) == (state != "ok")


def test_cache_is_measured(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "kernel").write_bytes(b"x" * 1000)
    (tmp_path / "dangling").symlink_to("nowhere")
    cache = doctor.inspect_cache("kernels", tmp_path)
    assert 1000 <= cache.size < 1100
    assert cache.writable
    assert doctor.inspect_cache("kernels", tmp_path / "not" / "yet").writable
    assert not doctor.inspect_cache("kernels", tmp_path / "sub" / "kernel").writable


def test_network_types() -> None:
    assert Mount(Path("/"), "beegfs").over_network
    assert not Mount(Path("/"), "overlay").over_network
