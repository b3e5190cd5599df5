"""A history is read as it was written, and nothing else is taken for one."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tests.kits import search_kit as kit

from sartor.share.errors import InputRefusedError, UsageError
from sartor.tools.prune.history import History, is_history, read_histories, read_history, write_history
from sartor.tools.prune.strategies.base import Random
from sartor.tools.prune.strategies.fit import uniform
from sartor.tools.prune.strategies.learned import Learned

PROBLEM = kit.problem(1)


@pytest.fixture(scope="module")
def made() -> History:
    """Return the history of a short search by an agent."""
    agent = Learned(PROBLEM, uniform(PROBLEM), 0, (), "none", False)
    return kit.history(PROBLEM, *kit.search(agent, PROBLEM, 6), agent.agent.parameters())


@pytest.fixture
def path(made: History, tmp_path: Path) -> Path:
    """Return the path of its file."""
    write_history(made, tmp_path / "run.h5")
    return tmp_path / "run.h5"


def test_it_is_read_as_written(made: History, path: Path) -> None:
    found = read_history(path)
    assert found.run == made.run
    assert found.problem.names == PROBLEM.names
    assert found.problem.costs.nodes == PROBLEM.costs.nodes
    for name in ("sizes", "least", "steps", "facts"):
        np.testing.assert_array_equal(getattr(found.problem, name), getattr(PROBLEM, name))
    np.testing.assert_array_equal(found.counts, made.counts)
    np.testing.assert_array_equal(found.scores, made.scores)
    assert found.learned.keys() == made.learned.keys()
    assert found.problem.costs.total(made.counts[2]) == PROBLEM.costs.total(made.counts[2])


def test_equal_searches_give_equal_bytes(made: History, path: Path, tmp_path: Path) -> None:
    # HDF5 counts whole seconds.
    time.sleep(1.1)
    write_history(read_history(path), tmp_path / "again.h5")
    assert path.read_bytes() == (tmp_path / "again.h5").read_bytes()


def test_episodes_are_added(made: History) -> None:
    more = made.with_episode(PROBLEM.least, 0.25)
    assert (len(more.scores), more.scores[-1]) == (7, 0.25)
    np.testing.assert_array_equal(more.counts[-1], PROBLEM.least)
    assert len(made.scores) == 6


def test_folders_are_read_in_order(made: History, tmp_path: Path) -> None:
    for name, seed in (("b", 2), ("a", 1)):
        search = kit.search(Random(PROBLEM, uniform(PROBLEM), seed), PROBLEM, seed)
        write_history(kit.history(PROBLEM, *search, {}), tmp_path / f"{name}.h5")
    assert [len(one.scores) for one in read_histories((str(tmp_path),))] == [1, 2]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no histories"):
        read_histories((str(tmp_path / "empty"),))


def change(file: h5py.File, name: str, content: Any) -> None:
    """Replace a dataset."""
    del file[name]
    file[name] = content


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("episodes/scores", np.array([np.nan] * 6)),
        ("episodes/scores", np.zeros(5)),
        ("episodes/counts", np.zeros((6, PROBLEM.units), int)),
        ("episodes/counts", np.full((6, PROBLEM.units), 10**6)),
        ("units/steps", np.zeros(PROBLEM.units, int)),
        ("units/curves/0", np.zeros(2)),
        ("units/products", json.dumps([[1, [[0, [[99, 1]]]]]])),
        ("units/products", "not JSON"),
        ("learned/actor.mu.0.bias", np.full(300, np.inf)),
    ],
)
def test_damage_is_refused(name: str, content: Any, path: Path) -> None:
    with h5py.File(path, "r+") as file:
        change(file, name, content)
    with pytest.raises(InputRefusedError, match="the history is damaged"):
        read_history(path)


@pytest.mark.parametrize("name", ["episodes", "units/names", "units/products", "units/curves"])
def test_what_is_missing_is_damage(name: str, path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file[name]
    with pytest.raises(InputRefusedError, match="the history is damaged"):
        read_history(path)


def test_other_files_are_refused(path: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    assert (is_history(path), is_history(tmp_path / "other.h5")) == (True, False)
    with pytest.raises(InputRefusedError, match="no history of prune"):
        read_history(tmp_path / "other.h5")
    (tmp_path / "cut.h5").write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputRefusedError):
        read_history(tmp_path / "cut.h5")
    (tmp_path / "zip.h5").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputRefusedError):
        read_history(tmp_path / "zip.h5")


def test_newer_schemas_are_refused(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = 2
    with pytest.raises(InputRefusedError, match="its schema is 2, not 1"):
        read_history(path)
