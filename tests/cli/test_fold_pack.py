"""`sartor fold-pack` as users run it, and `sartor inspect` of what it writes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.conftest import RunSartor
from tests.kits.protein_kit import Polymer, a3m, mmcif, residues_of, write

SEQUENCE = "MKVLAGHTWYRSPDEQNCIF"
NAME = "chains-0001-of-0001-00000.h5"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with one entry of two chains, and the alignment of one."""
    polymers = [Polymer("A", residues_of(SEQUENCE)), Polymer("B", residues_of("GGHHKKWW"))]
    hits = a3m({"query": SEQUENCE, "hit": SEQUENCE[:-1] + "W"})
    return write(tmp_path, {"mmcif/1abc.cif": mmcif("1abc", polymers), "alignments/1abc_A/uniref90_hits.a3m": hits})


def pack(sartor: RunSartor, folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return sartor("fold-pack", "mmcif", "alignments", "-o", "out", "-@", "1", *arguments, cwd=folder)


def test_packing_and_what_it_says(sartor: RunSartor, folder: Path) -> None:
    done = pack(sartor, folder, "--report", "r.json")
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.startswith(b"2 chains of 2 sequences in 1 shards, ")
    report = json.loads((folder / "r.json").read_text())
    assert (report["schema"], report["tool"], report["written"], report["chains"]) == (1, "fold-pack", [NAME], 2)
    again = pack(sartor, folder, "--json")
    document = json.loads(again.stdout)
    assert (document["written"], document["kept"], document["dropped"]) == ([], [NAME], [])
    quiet = pack(sartor, folder, "-q")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, b"", b"")


def test_inspect_shows_the_table(sartor: RunSartor, folder: Path) -> None:
    pack(sartor, folder)
    shown = sartor("inspect", "out", cwd=folder).stdout.decode()
    assert "table of 2 rows" in shown
    (line,) = [line for line in shown.splitlines() if "1abc_A" in line]
    file, name, _, *facts = line.split()
    assert (file, name, facts) == (NAME, "1abc_A", ["20", "2", "0", "1", "2", "2020-02-01"])
    found = json.loads(sartor("inspect", f"out/{NAME}", "--json", cwd=folder).stdout)
    assert found["table"]["name"] == ["1abc_A", "1abc_B"]
    assert found["table"]["depth"] == [2, 1]
    assert found["table"]["length"] == [20, 8]
    assert found["tensors"] == []
    assert [record["tool"] for record in found["history"]] == ["fold-pack"]


def test_a_damaged_file_is_a_warning_and_the_rest_goes_on(sartor: RunSartor, folder: Path) -> None:
    write(folder, {"mmcif/2bad.cif": "HEADER", "alignments/1abc_B/x.a3m": a3m({"q": "GGHHKKWW", "ragged": "GG"})})
    done = pack(sartor, folder, "-v", "--no-history")
    assert done.returncode == 0
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith("sartor fold-pack: warning: 2bad.cif: it can't be read as mmCIF")
    reason = "row 2 (ragged) has 2 columns, the first row has 8"
    assert lines[1] == f"sartor fold-pack: warning: 1abc_B: x.a3m: {reason}"
    assert lines[2].endswith("left out: 1 chain, 2 files")
    assert any(line.split() == ["chain", "1abc_B", "x.a3m:", *reason.split()] for line in lines[3:])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["no", "alignments", "-o", "out"], 65, "no: there is no such folder. Check the name"),
        (["mmcif", "no", "-o", "out"], 65, "no: there is no such folder. Check the name"),
        (["alignments", "alignments", "-o", "out"], 65,
         "alignments: there are no mmCIF files in it. Give *.cif or *.cif.gz"),
        (["mmcif", "alignments"], 2, "missing option '-o' / '--output'. See `sartor fold-pack --help`"),
        (["mmcif", "alignments", "-o", "out", "--max-template-date", "May"], 2,
         "--max-template-date May: it is no date. Write it as --max-template-date 2021-09-30"),
        (["mmcif", "alignments", "-o", "out", "--shard", "3/2"], 2,
         "--shard 3/2: it is no part. Write it as --shard 3/8, from 1/8 to 8/8"),
        (["mmcif", "alignments", "-o", "out", "--clusters", "no.txt"], 65,
         "no.txt: it can't be read (no such file or directory). Give a text with a cluster a line"),
        (["mmcif", "alignments", "-o", "mmcif/1abc.cif"], 73,
         "mmcif/1abc.cif: the folder can't be made (file exists). Choose another place"),
        (["mmcif", "alignments", "-o", "out", "--max-resolution", "1.5"], 65,
         "mmcif: no chain of it can be packed (1abc_A: its resolution is 2 angstroms; "
         "1abc_B: its resolution is 2 angstroms). Give others"),
    ],
)  # fmt: skip
def test_refusals(sartor: RunSartor, folder: Path, arguments: list[str], code: int, message: str) -> None:
    done = sartor("fold-pack", *arguments, cwd=folder)
    assert (done.returncode, done.stdout) == (code, b"")
    assert done.stderr.decode() == f"sartor fold-pack: error: {message}\n"


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_and_leaves_nothing(folder: Path, threads: str, sent: int, code: int) -> None:
    # Whoever reads a pipe waits for somebody to write into it.
    os.mkfifo(folder / "alignments" / "1abc_B.a3m")
    command = [Path(sys.executable).with_name("sartor"), "fold-pack", "mmcif", "alignments", "-o", "out", "-@", threads]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, start_new_session=True)
    parts: list[Path] = []
    while not parts:
        assert process.poll() is None
        time.sleep(0.05)
        parts = list((folder / "out").glob(".*.part")) if (folder / "out").exists() else []
    time.sleep(1.0)
    os.killpg(process.pid, sent)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code
    assert told.decode().startswith("sartor fold-pack: error: ")
    assert list((folder / "out").iterdir()) == []
    assert _gone(process.pid)


def _gone(group: int) -> bool:
    """Tell whether no process of a group is left soon; those that clean up after others end last."""
    for _ in range(200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False
