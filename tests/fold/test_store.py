"""Shards: what is written is read back; what is damaged, foreign or twice there is refused by name."""

from __future__ import annotations

import multiprocessing
from dataclasses import fields, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.kits.protein_kit import chain_of

from sartor.share.errors import InputRefusedError
from sartor.tools.fold.data.config import DataConfig
from sartor.tools.fold.data.sample import sample
from sartor.tools.fold.parse.alignment import Deletions
from sartor.tools.fold.store import Chain, Shards, Templates, open_shards
from sartor.tools.fold.writing import PackedChain, compress, pack_chain, write_shard, write_summary

ONE, TWO = chain_of(600, 41), chain_of(1, 7, seed=1, templates=0, name="2xyz_b")


def written(path: Path, *chains: Chain) -> Path:
    with h5py.File(path, "w") as file:
        write_shard(file, map(pack_chain, chains))
        write_summary(file, {"chains": len(chains), "dropped": [], "left_out": {}})
    return path


def require_same(one: object, other: object) -> None:
    """Compare dataclasses field by field, arrays by bits and types."""
    for field in fields(one):  # type: ignore[arg-type]
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, Deletions | Templates):
            require_same(a, b)
        elif isinstance(a, np.ndarray):
            assert a.dtype == b.dtype, field.name
            np.testing.assert_array_equal(a, b, err_msg=field.name)
        else:
            assert a == b, field.name


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    shards = open_shards(written(tmp_path / "a.h5", ONE, TWO))
    assert (len(shards), shards.names, shards.lengths, shards.clusters) == (2, ("1abc_A", "2xyz_b"), (41, 7), (3, 3))
    assert (shards.chains.depth, shards.chains.templates, shards.chains.resolution) == ((600, 1), (3, 0), (2.5, 2.5))
    for position, chain in enumerate((ONE, TWO)):
        require_same(shards.load(position), chain)
    assert shards.position("2xyz_b") == 1
    shards.close()


def test_alignments_lie_in_chunks_that_stock_hdf5_reads(tmp_path: Path) -> None:
    with h5py.File(written(tmp_path / "a.h5", ONE)) as file:
        (group,) = file["sequences"].values()
        assert (group["msa"].chunks, group["msa"].compression, group["msa"].compression_opts) == ((256, 41), "gzip", 1)
        assert group["templates/positions"].chunks == (1, 41, 37, 3)
        np.testing.assert_array_equal(group["msa"][300:310, 5], ONE.msa[300:310, 5])


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (5, 3), (6, 2, 2)])
def test_compression_of_odd_shapes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    packed = compress(array, 4)
    assert len(packed.chunks) == -(-shape[0] // min(4, max(shape[0], 1)))


def test_a_folder_of_shards_and_its_digest(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
    written(tmp_path / "x" / "a.h5", ONE)
    written(tmp_path / "x" / "b.h5", TWO)
    written(tmp_path / "y" / "whatever.h5", ONE, TWO)
    several, single = open_shards(tmp_path / "x"), open_shards(tmp_path / "y")
    assert several.names == single.names
    assert several.digest == single.digest
    assert several.digest != open_shards(tmp_path / "x" / "a.h5").digest
    require_same(several.load(1), TWO)


def _length(shards: Shards) -> int:
    return shards.load(0).length


def test_shards_go_to_other_processes(tmp_path: Path) -> None:
    shards = open_shards(written(tmp_path / "a.h5", ONE))
    shards.load(0)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_length, (shards,)) == 41


def test_chains_of_one_sequence_share_all_but_their_atoms_and_templates(tmp_path: Path) -> None:
    packed = pack_chain(ONE)
    (own,) = packed.chains
    twin = PackedChain("3def_C", own.positions + 1, own.mask, (2, 0), 3, 1.5, "2021-01-01")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        assert write_shard(file, [replace(packed, chains=(own, twin))]) == 2
        assert len(file["sequences"]) == 1
    shards = open_shards(tmp_path / "a.h5")
    other = shards.load(1)
    assert other.templates.names == ("2x02_A", "2x00_A")
    np.testing.assert_array_equal(other.templates.sum_probs, ONE.templates.sum_probs[[2, 0]])
    np.testing.assert_array_equal(other.msa, ONE.msa)
    np.testing.assert_array_equal(other.positions, ONE.positions + 1)
    assert (other.date, other.resolution) == ("2021-01-01", 1.5)


def refusal(path: Path) -> str:
    def first() -> Chain:
        return open_shards(path).load(0)

    with pytest.raises(InputRefusedError) as caught:
        first()
    return str(caught.value).replace(f"{path}", path.name)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    assert refusal(path).startswith("a.h5: there is no such file")
    path.write_bytes(b"text")
    assert refusal(path).startswith("a.h5: this is a text file, not an HDF5 file")
    with h5py.File(path, "w") as file:
        file["x"] = 1
    assert refusal(path) == "a.h5: this is no shard of proteins. Give shards of fold-pack"
    (tmp_path / "empty").mkdir()
    message = refusal(tmp_path / "empty")
    assert message == "empty: there are no shards in this folder. Make some with `sartor fold-pack`"


def test_another_schema_and_an_empty_shard_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5", ONE)
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = 9
    assert refusal(path) == "a.h5: its schema is 9, not 1. Pack it again"
    assert refusal(written(path)) == "a.h5: there are no chains in it. See the report of fold-pack"


def test_a_chain_in_two_shards_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "a.h5", ONE, TWO)
    written(tmp_path / "b.h5", TWO)
    assert refusal(tmp_path).endswith("chain 2xyz_b is in it twice. Pack into a folder of its own")


def test_an_unknown_chain_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputRefusedError, match="there is no chain 9zzz_Z in it"):
        open_shards(written(tmp_path / "a.h5", ONE)).position("9zzz_Z")


SEQUENCE = pack_chain(ONE).key


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("table/name", None, "its table can't be read"),
        ("table/length", np.array([1, 2], np.int32), "its table can't be read (its columns differ in length)"),
        (f"sequences/{SEQUENCE}/msa", None, "chain 1abc_A can't be read"),
        (f"sequences/{SEQUENCE}/msa", np.zeros((3, 41), np.uint8), "its alignment is (3, 41)"),
        (f"sequences/{SEQUENCE}/msa", np.full((600, 41), 22, np.uint8), "its alignment has unknown classes"),
        (f"sequences/{SEQUENCE}/deletions", np.array([[600, 0, 1]], np.int32), "its deletions are outside"),
        (f"sequences/{SEQUENCE}/deletions", np.array([[0, -1, 1]], np.int32), "its deletions are outside"),
        (f"sequences/{SEQUENCE}/deletions", np.array([[2, 0, 1], [1, 0, 1]], np.int32), "deletions are out of order"),
        (f"sequences/{SEQUENCE}/profile", np.zeros((41, 21), np.float32), "its profile is (41, 21)"),
        (f"sequences/{SEQUENCE}/templates/aatype", np.zeros((3, 40), np.uint8), "its templates are (3, 40)"),
        ("chains/1abc_A/positions", np.zeros((40, 37, 3), np.float32), "its positions are (40, 37, 3)"),
        ("chains/1abc_A/templates", np.array([7], np.uint16), "chain 1abc_A can't be read"),
    ],
)  # fmt: skip
def test_damage_is_refused_before_compiled_code_sees_it(
    tmp_path: Path, name: str, value: np.ndarray | None, reason: str
) -> None:
    path = written(tmp_path / "a.h5", ONE)
    with h5py.File(path, "r+") as file:
        del file[name]
        if value is not None:
            file[name] = value
    message = refusal(path)
    assert message.startswith("a.h5: ")
    assert reason in message


@pytest.mark.parametrize("name", ["table/name", f"sequences/{SEQUENCE}", f"sequences/{SEQUENCE}/msa", "chains/1abc_A"])
@pytest.mark.parametrize("link", [h5py.ExternalLink("other.h5", "/x"), h5py.SoftLink("/summary")])
def test_links_are_refused_where_they_are_met(tmp_path: Path, name: str, link: object) -> None:
    path = written(tmp_path / "a.h5", ONE)
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = link
    kind = "an external link" if isinstance(link, h5py.ExternalLink) else "a soft link"
    # Long names are cut.
    assert refusal(path).startswith("a.h5: '/" + name[:50])
    assert refusal(path).endswith(f"is {kind}. Copy the data into the file")


def test_data_outside_is_refused_where_it_is_met(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5", ONE)
    (tmp_path / "raw").write_bytes(bytes(600 * 41))
    with h5py.File(path, "r+") as file:
        del file[f"sequences/{SEQUENCE}/msa"]
        file.create_dataset(
            f"sequences/{SEQUENCE}/msa", (600, 41), "u1", external=[(str(tmp_path / "raw"), 0, 600 * 41)]
        )
    assert refusal(path).endswith("has external storage. Copy the data into the file")


def test_a_shard_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5", ONE)
    path.write_bytes(path.read_bytes()[:-500])
    assert refusal(path) == "a.h5: the HDF5 file is cut short. Download, copy or export it again"


def test_what_is_read_can_be_sampled(tmp_path: Path) -> None:
    config = DataConfig(crop_size=16, clusters=4, extra=4, templates=2)
    found = open_shards(written(tmp_path / "a.h5", ONE)).load(0)
    ours, other = sample(found, config, 0, 1, 2), sample(ONE, config, 0, 1, 2)
    assert all(np.array_equal(ours[name], other[name]) for name in other)
