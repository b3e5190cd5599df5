"""Packing: what is in shards, what was left out and why, parts, and runs that were stopped and started again."""

from __future__ import annotations

import gzip
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.kits.protein_kit import Hit, Polymer, a3m, hhr, mmcif, residues_of, sto, write

from sartor.share.errors import InputRefusedError, UsageError
from sartor.share.history import read_hdf5
from sartor.tools.fold import pack as story
from sartor.tools.fold.alphabet import decode
from sartor.tools.fold.data.profile import profile_reference
from sartor.tools.fold.index import Dropped
from sartor.tools.fold.pack import pack
from sartor.tools.fold.plan import Options, Packed
from sartor.tools.fold.report import as_data, as_text, headline
from sartor.tools.fold.store import Chain, open_shards

LONG = "MKVLAGHTWYRSPDEQNCIF"
NAME = "chains-0001-of-0001-00000.h5"


def structure(code: str, *sequences: str, released: str = "2020-02-01") -> dict[str, str | bytes]:
    polymers = [Polymer("ABCD"[number], residues_of(one)) for number, one in enumerate(sequences)]
    return {f"mmcif/{code}.cif": mmcif(code, polymers, released=released)}


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Return a folder with three entries, two of one sequence, a template, and alignments in two layouts."""
    hits = [
        Hit("1abc_A", LONG, LONG),
        Hit("2tmp_A", LONG[2:18], LONG[2:18], 12.0, 3, 3),
        Hit("9zzz_A", LONG, LONG[:-1] + "W"),
    ]
    return write(
        tmp_path / "in",
        {
            **structure("1abc", LONG, "GGHHKK"),
            **structure("2tmp", LONG[:18], released="2010-01-01"),
            "mmcif/3def.cif.gz": gzip.compress(mmcif("3def", [Polymer("A", residues_of(LONG))]).encode()),
            "alignments/1abc_A/uniref90_hits.a3m": a3m({"q": LONG, "a": "MKVaLAGHTWYRSPDEQNC--", "b": LONG}),
            "alignments/1abc_A/mgnify_hits.sto": sto({"q": LONG, "c": "-" * 10 + LONG[10:]}),
            "alignments/1abc_A/pdb70_hits.hhr": hhr(hits),
            "alignments/1abc_B/a3m/uniref90_hits.a3m": a3m({"q": "GGHHKK", "a": "GGHHK-"}),
            "alignments/8idl_A/uniref90_hits.a3m": a3m({"q": "MKVL"}),
        },
    )  # fmt: skip


def run(inputs: Path, target: Path, **changed: object) -> Packed:
    options = replace(Options(), **changed)  # type: ignore[arg-type]
    return pack(inputs / "mmcif", inputs / "alignments", target, options, ["fold-pack", "-o", str(target)])


def chains_of(target: Path) -> dict[str, Chain]:
    shards = open_shards(target)
    return {name: shards.load(position) for position, name in enumerate(shards.names)}


@pytest.mark.parametrize("processes", [1, 2])
def test_what_is_packed(inputs: Path, tmp_path: Path, processes: int) -> None:
    packed = run(inputs, tmp_path / "out", processes=processes)
    assert (packed.written, packed.kept, packed.chains, packed.sequences, packed.rows) == ((NAME,), (), 4, 3, 8)
    found = chains_of(tmp_path / "out")
    assert list(found) == ["1abc_A", "3def_A", "1abc_B", "2tmp_A"]
    chain = found["1abc_A"]
    assert [decode(row) for row in chain.msa] == [LONG, LONG[:-2] + "--", "-" * 10 + LONG[10:]]
    cut = chain.deletions
    assert (cut.rows.tolist(), cut.columns.tolist(), cut.counts.tolist()) == ([1], [3], [1])
    np.testing.assert_array_equal(chain.profile, profile_reference(chain.msa))
    assert (chain.resolution, chain.date, chain.cluster) == (2.0, "2020-02-01", 2)
    assert chain.mask.sum() == 5 * len(LONG)
    assert [decode(row) for row in found["2tmp_A"].msa] == [LONG[:18]]


def test_chains_of_one_sequence_share_the_alignment_and_see_their_own_templates(inputs: Path, tmp_path: Path) -> None:
    run(inputs, tmp_path / "out")
    found = chains_of(tmp_path / "out")
    assert [decode(row) for row in found["3def_A"].msa] == [decode(row) for row in found["1abc_A"].msa]
    assert found["1abc_A"].templates.names == ("2tmp_A",)
    assert found["3def_A"].templates.names == ("2tmp_A",)
    assert decode(found["1abc_A"].templates.aatype[0]) == "--" + LONG[2:18] + "--"
    with h5py.File(tmp_path / "out" / NAME) as file:
        assert len(file["sequences"]) == 3


def test_templates_may_be_limited_by_number_and_date(inputs: Path, tmp_path: Path) -> None:
    run(inputs, tmp_path / "none", templates=0)
    run(inputs, tmp_path / "old", latest="2009-12-31")
    assert {
        len(chain.templates.names) for name in ("none", "old") for chain in chains_of(tmp_path / name).values()
    } == {0}


def test_what_is_left_out_is_named_with_the_reason(inputs: Path, tmp_path: Path) -> None:
    write(
        inputs,
        {
            **structure("4bad", "MKVLMKVL"), "alignments/4bad_A/uniref90_hits.a3m": a3m({"q": "MKVLMKVL", "a": "MK"}),
            **structure("5oth", "GGGHHH"), "alignments/5oth_A/uniref90_hits.a3m": a3m({"q": "GGGHHW"}),
            **structure("6gzz", "WWWHHH"), "alignments/6gzz_A/uniref90_hits.a3m.gz": b"\x1f\x8b\x08\x00",
            "mmcif/7cut.cif": mmcif("7cut", [Polymer("A", residues_of(LONG))])[:-70],
            "mmcif/8nmr.cif": mmcif("8nmr", [Polymer("A", residues_of(LONG))], resolution="?"),
        },
    )  # fmt: skip
    packed = run(inputs, tmp_path / "out")
    assert packed.chains == 4
    by_kind = {kind: {one.name: one.reason for one in packed.dropped if one.kind == kind}
               for kind in ("file", "chain", "alignment")}  # fmt: skip
    ragged = "row 2 (a) has 2 columns, the first row has 8"
    assert by_kind["file"].pop("7cut.cif").startswith("it can't be read as mmCIF")
    assert by_kind["file"] == {
        "4bad_A: uniref90_hits.a3m": ragged,
        "5oth_A: uniref90_hits.a3m": "its first row differs from the chain at residue 6",
        "6gzz_A: uniref90_hits.a3m.gz": "it can't be decompressed",
    }
    assert by_kind["chain"] == {
        "4bad_A": f"uniref90_hits.a3m: {ragged}",
        "5oth_A": "uniref90_hits.a3m: its first row differs from the chain at residue 6",
        "6gzz_A": "uniref90_hits.a3m.gz: it can't be decompressed",
        "8nmr_A": "its resolution is not told",
    }
    assert by_kind["alignment"] == {"8idl_A": "no chain that can be packed has this name"}
    assert packed.left_out == {"it is of the same entry": 1, "its structure is not in the folder": 1}
    # An earlier run is asked, not repeated.
    again = run(inputs, tmp_path / "out")
    assert (again.kept, again.written) == ((NAME,), ())
    assert set(again.dropped) == set(packed.dropped)


def test_reports(inputs: Path, tmp_path: Path) -> None:
    packed = run(inputs, tmp_path / "out")
    assert headline(packed).startswith("4 chains of 3 sequences in 1 shards, ")
    assert headline(packed).endswith("MB a second; left out: 1 alignment")
    assert as_data(packed)["dropped"] == (
        {"kind": "alignment", "name": "8idl_A", "reason": "no chain that can be packed has this name"},
    )
    many = replace(packed, dropped=tuple(Dropped("chain", f"x{number}", "so") for number in range(30)))
    assert "x19" in as_text(many)
    assert "x20" not in as_text(many)
    assert "and 10 more" in as_text(many)
    assert as_text(replace(packed, dropped=(), left_out={})) == ""


def test_parts_together_are_the_whole(inputs: Path, tmp_path: Path) -> None:
    run(inputs, tmp_path / "whole")
    reports = [run(inputs, tmp_path / "parts", part=(number, 3)) for number in (1, 2, 3)]
    whole, parts = chains_of(tmp_path / "whole"), chains_of(tmp_path / "parts")
    assert parts.keys() == whole.keys()
    assert {name: chain.cluster for name, chain in parts.items()} == {name: c.cluster for name, c in whole.items()}
    assert [one.name for report in reports for one in report.dropped] == ["8idl_A"]
    assert sum(report.chains for report in reports) == 4


def test_another_number_of_parts_does_not_go_into_the_same_folder(inputs: Path, tmp_path: Path) -> None:
    run(inputs, tmp_path / "out")
    with pytest.raises(UsageError, match="it has shards of another number of parts, such as chains-0001-of-0001-00000"):
        run(inputs, tmp_path / "out", part=(1, 2))


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_the_same_files_give_the_same_bytes(inputs: Path, tmp_path: Path) -> None:
    run(inputs, tmp_path / "a" / "out")
    for path in inputs.rglob("*.*"):
        os.utime(path, (1, 1))
    run(inputs, tmp_path / "b" / "out", processes=2)
    assert digests(tmp_path / "a" / "out") == digests(tmp_path / "b" / "out")
    with h5py.File(tmp_path / "a" / "out" / NAME) as file:
        (record,) = read_hdf5(file)
    assert (record.tool, record.argv) == ("fold-pack", ("fold-pack", "-o", "out"))
    assert record.parameters["templates"] == 20


def test_shards_have_a_size(inputs: Path, tmp_path: Path) -> None:
    packed = run(inputs, tmp_path / "out", shard_bytes=1)
    assert packed.written == tuple(f"chains-0001-of-0001-{number:05d}.h5" for number in range(3))
    assert len(open_shards(tmp_path / "out")) == 4


def test_an_interrupted_run_leaves_whole_shards_and_goes_on(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(inputs, tmp_path / "whole", shard_bytes=1)
    real = story.gather

    def stopping(group: object, *rest: object) -> object:
        if group.entries[0].name == "1abc_B":  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return real(group, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(story, "gather", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(inputs, tmp_path / "out", shard_bytes=1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [NAME]
    monkeypatch.setattr(story, "gather", real)
    packed = run(inputs, tmp_path / "out", shard_bytes=1)
    assert (packed.kept, len(packed.written), packed.chains) == ((NAME,), 2, 4)
    assert "(1 there already)" in headline(packed)
    mine, whole = digests(tmp_path / "out"), digests(tmp_path / "whole")
    assert mine.keys() == whole.keys()
    assert chains_of(tmp_path / "out").keys() == chains_of(tmp_path / "whole").keys()


@pytest.mark.parametrize("change", ["content", "touched", "options", "template", "damaged"])
def test_a_shard_is_made_again_where_something_has_changed(inputs: Path, tmp_path: Path, change: str) -> None:
    out, options = tmp_path / "out", {}
    run(inputs, out)
    if change == "content":
        write(inputs, {"alignments/1abc_B/a3m/uniref90_hits.a3m": a3m({"q": "GGHHKK"})})
    elif change == "touched":
        os.utime(inputs / "mmcif" / "1abc.cif")
        os.utime(out / NAME, (1, 1))
    elif change == "options":
        options = {"templates": 3}
    elif change == "template":
        write(inputs, structure("9zzz", LONG[:-1] + "W", released="2001-01-01"))
    else:
        (out / NAME).write_bytes((out / NAME).read_bytes()[:-100])
    packed = run(inputs, out, **options)
    assert (packed.written, packed.kept) == ((NAME,), ())
    assert run(inputs, out, **options).kept == (NAME,)


def test_shards_that_nothing_belongs_into_any_more_are_removed(inputs: Path, tmp_path: Path) -> None:
    run(inputs, tmp_path / "out", shard_bytes=1)
    (inputs / "mmcif" / "2tmp.cif").unlink()
    run(inputs, tmp_path / "out", shard_bytes=1)
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert list(chains_of(tmp_path / "out")) == ["1abc_A", "3def_A", "1abc_B"]


def test_clusters_of_a_file(inputs: Path, tmp_path: Path) -> None:
    write(inputs, {"clusters.txt": "1ABC_A 7X_A 7X_B\n3DEF_1 1ABC_2\n"})
    run(inputs, tmp_path / "out", clusters=str(inputs / "clusters.txt"))
    assert open_shards(tmp_path / "out").clusters == (3, 2, 2, 1)


def test_a_run_of_which_nothing_can_be_packed_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"mmcif/1abc.cif": "HEADER", "alignments/1abc_A/x.a3m": a3m({"q": "MKVL"})})
    with pytest.raises(InputRefusedError, match=r"no chain of it can be packed \(1abc.cif: it can't be read as mmCIF"):
        run(tmp_path, tmp_path / "out")
    write(tmp_path, {**structure("1abc", "MKVLW"), "alignments/1abc_A/x.a3m": a3m({"q": "MKVL"})})
    with pytest.raises(InputRefusedError, match=r"x\.a3m: its first row has 4 residues, the chain has 5"):
        run(tmp_path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_sequences_that_differ_in_rare_residues_alone_are_one(tmp_path: Path) -> None:
    polymers = [Polymer("A", ("MET", "SEC", "GLY", "LYS")), Polymer("B", ("MET", "UNK", "GLY", "LYS"))]
    write(
        tmp_path, {"mmcif/1abc.cif": mmcif("1abc", polymers), "alignments/1abc_A.a3m": a3m({"q": "MUGK", "a": "MCGK"})}
    )
    packed = run(tmp_path, tmp_path / "out")
    assert (packed.chains, packed.sequences) == (2, 1)
    assert {decode(chain.aatype) for chain in chains_of(tmp_path / "out").values()} == {"MXGK"}


def test_real_entries(data: Path, tmp_path: Path) -> None:
    packed = pack(data / "fold" / "mmcif", data / "fold" / "alignments", tmp_path, Options(), None)
    assert (packed.chains, packed.sequences, packed.dropped) == (14, 10, ())
    found = chains_of(tmp_path)
    assert found["721p_A"].msa.shape == (15_306, 166)
    # Of 20 rows each database tells some.
    assert found["2q2k_A"].msa.shape == found["2q2k_B"].msa.shape == (20, 70)
    with h5py.File(tmp_path / NAME) as file:
        assert read_hdf5(file) == []
