"""Names, merges and splits: what they do to the clusters, what is refused, and that a run stays as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebsc_core.curation.decide import merge_clusters, name_clusters, split_cluster, undo
from ebsc_core.curation.names import checked_names, read_names
from ebsc_core.plugins.registry import Registry
from ebsc_core.runs.store.decisions import (
    Merge,
    Name,
    Naming,
    Part,
    Split,
    apply,
    read_decisions,
    write_decisions,
)
from ebsc_core.runs.store.directory import DECISIONS
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.errors import ConfigError, EbscError, RunDirectoryError

SIX = np.array([0, 0, 1, 1, 2, -1])


@pytest.fixture
def run(ebsc, tmp_path: Path) -> SavedRun:
    """A run on four tight groups of rows, of which its two clusters take two each."""
    rng = np.random.default_rng(0)
    centers = np.array([[1, 0.6, 0, 0], [0.6, 1, 0, 0], [0, 0, 1, 0.6], [0, 0, 0.6, 1]])
    rows = np.repeat(np.pad(centers, ((0, 0), (0, 4))), 15, 0)
    np.save(tmp_path / "rows.npy", (rows + 0.05 * rng.standard_normal(rows.shape)).astype(np.float32))
    flags = ("--coefficients", "knn", "--n-clusters", "2", "--set", "top_k=5", "--quiet")
    assert ebsc("cluster", "rows.npy", *flags, "--out", "run").code == 0
    return SavedRun(tmp_path / "run")


def decisions(data: st.DataObject, clusters: np.ndarray) -> list[Merge | Split]:
    """Draw decisions that fit, one after the other."""
    made: list[Merge | Split] = []
    for _ in range(data.draw(st.integers(0, 5))):
        now = apply(clusters, made)
        large = [number for number in now.numbers if (now.clusters == number).sum() > 1]
        if len(now.numbers) > 1 and (not large or data.draw(st.booleans())):
            numbers = data.draw(st.lists(st.sampled_from(now.numbers), min_size=2, max_size=3, unique=True))
            made.append(Merge(numbers=numbers))
        elif large:
            number = data.draw(st.sampled_from(large))
            members = np.flatnonzero(now.clusters == number).tolist()
            moved = members[: data.draw(st.integers(1, len(members) - 1))]
            made.append(Split(number=number, parts=[Part(number=now.highest + 1, rows=moved)]))
    return made


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=20), st.data())
def test_no_number_is_ever_given_twice(found: list[int], data: st.DataObject) -> None:
    clusters = np.array(found)
    made, seen = decisions(data, clusters), set(clusters.tolist())
    for count in range(1, len(made) + 1):
        before, after = apply(clusters, made[: count - 1]), apply(clusters, made[:count])
        new = set(after.clusters.tolist()) - set(before.clusters.tolist())
        assert not new & seen
        seen |= new
        assert ((after.clusters < 0) == (clusters < 0)).all()
        assert after.highest == max(seen)
    assert clusters.tolist() == found


@pytest.mark.parametrize("kind", [np.int64, np.uint8])
def test_numbers_may_be_those_of_an_array(run: SavedRun, kind: type[np.integer]) -> None:
    """As those of the clusters are; they are written like Python's own."""
    zero, one, two = map(kind, range(3))
    decided = split_cluster(name_clusters(run, {zero: "herbs"}), zero, two, Registry())
    decided = merge_clusters(decided, [one, two])
    assert decided.curated.names == {0: "herbs"}
    assert decided.curated.numbers == [0, 1]
    plain = split_cluster(name_clusters(_undone(decided), {0: "herbs"}), 0, 2, Registry())
    assert merge_clusters(plain, [1, 2]).decisions == decided.decisions


def _undone(run: SavedRun) -> SavedRun:
    while run.decisions:
        run, _ = undo(run)
    return run


@pytest.mark.parametrize("number", [0.0, None])
def test_what_is_no_whole_number_is_one_line(run: SavedRun, number: Any) -> None:
    wrong: list[Callable[[], Any]] = [
        lambda: name_clusters(run, {number: "herbs"}),
        lambda: merge_clusters(run, [number, 1]),
        lambda: split_cluster(run, number, 2, Registry()),
    ]
    for decide in wrong:
        with pytest.raises(ConfigError, match="whole numbers, not by"):
            decide()


@pytest.mark.parametrize("name", [None, 3, b"herbs"])
def test_a_name_that_is_no_text_is_one_line(run: SavedRun, name: Any) -> None:
    with pytest.raises(ConfigError, match="the name of cluster 0 must be text, not"):
        name_clusters(run, {0: name})


def test_clusters_are_given_by_number_or_name(run: SavedRun) -> None:
    run = name_clusters(run, {0: "Cafe\u0301", "1": "trees"})
    assert run.curated.names == {0: "Caf\u00e9", 1: "trees"}
    run = name_clusters(run, {"TREES": "woods"})
    assert run.curated.names[1] == "woods"
    for cluster in ("woods", "1", 1):
        cut = split_cluster(run, cluster, 2, Registry())
        assert cut.curated.numbers == [0, 1, 2]
        run, _ = undo(cut)
    merged = merge_clusters(run, ["woods", "caf\u00e9"])
    assert 1 not in merged.curated.numbers
    with pytest.raises(ConfigError, match=r"no cluster called 'herbs'; its clusters are 0 \(Caf\u00e9\)"):
        merge_clusters(merged, ["herbs", 2])


def test_a_cluster_that_is_given_twice_loses_no_name(run: SavedRun) -> None:
    run = name_clusters(run, {0: "herbs"})
    with pytest.raises(ConfigError, match="given twice"):
        name_clusters(run, {"0": "first", "herbs": "second"})


def test_a_merge_keeps_the_smaller_number_and_a_name() -> None:
    named = Naming(names=[Name(number=1, name="herbs"), Name(number=2, name="trees")])
    merged = apply(SIX, [named, Merge(numbers=[2, 0])])
    assert merged.clusters.tolist() == [0, 0, 1, 1, 0, -1]
    assert merged.names == {0: "trees", 1: "herbs"}
    assert merged.changed == {0}
    again = apply(SIX, [named, Merge(numbers=[2, 0]), Merge(numbers=[0, 1])])
    assert again.names == {0: "trees"}
    assert again.clusters.tolist() == [0] * 5 + [-1]


@pytest.mark.parametrize(
    ("decision", "said"),
    [
        (Merge(numbers=[0, 7]), "no cluster 7"),
        (Merge(numbers=[0, 0]), "twice"),
        (Naming(names=[Name(number=9, name="x")]), "no cluster 9"),
        (Naming(names=[Name(number=k, name=name) for k, name in ((0, "a"), (1, "A"))]), "the same name"),
        (Split(number=0, parts=[Part(number=3, rows=[2])]), "not in cluster 0"),
        (Split(number=0, parts=[Part(number=3, rows=[99])]), "not in cluster 0"),
        (Split(number=0, parts=[Part(number=2, rows=[1])]), "a second time"),
        (Split(number=0, parts=[Part(number=3, rows=[0, 1])]), "no cluster 0"),
    ],
)
def test_a_decision_that_does_not_fit_is_refused(decision, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        apply(SIX, [decision])


def named(name: str) -> dict[str, Any]:
    """A decision as it is in the file."""
    return {"kind": "name", "names": [{"number": 0, "name": name}]}


@pytest.mark.parametrize(
    "name", ["a/b", "..", "x.", " x", "12", "NUL", "None", "a\nb", "x" * 101, "é" * 51, "\udcff", "a:b"]
)
def test_a_name_that_is_no_folder_everywhere_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be called .* nor a device of Windows \(con, "):
        checked_names({0: name}, {})


def test_names_are_unique_however_they_are_written() -> None:
    with pytest.raises(ConfigError, match="clusters 0 and 1 cannot both be called 'Herbs'"):
        checked_names({1: "Herbs"}, {0: "herbs"})
    composed, apart = "caf\u00e9", "cafe\u0301"
    assert checked_names({1: apart}, {}) == {1: composed}
    # Names may change places in one go.
    assert checked_names({0: "b", 1: "a"}, {0: "a", 1: "b"}) == {0: "b", 1: "a"}


def test_names_are_read_from_toml(tmp_path: Path) -> None:
    file = tmp_path / "names.toml"
    file.write_text('3 = "herbs"\n0 = "trees"\n')
    assert read_names(file) == {3: "herbs", 0: "trees"}
    for wrong in ("x = 'y'", "3 = 4", "", "[3]\nx = 'y'", "3 = 'a'\n03 = 'b'", f"{'9' * 5000} = 'x'"):
        file.write_text(wrong)
        with pytest.raises(ConfigError, match=r"names\.toml"):
            read_names(file)


def test_a_split_finds_the_groups_within_a_cluster(run: SavedRun) -> None:
    before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    whole = int(run.assignments.clusters[0])
    after = split_cluster(name_clusters(run, {whole: "first"}), whole, 2, Registry())
    groups = after.curated.clusters.reshape(4, 15)
    assert (groups == groups[:, :1]).all()
    assert set(groups[:2, 0].tolist()) == {whole, 2}
    assert after.curated.names == {whole: "first"}
    assert after.curated.sizes() == dict.fromkeys(sorted({0, 1, 2}), 15) | {1 - whole: 30}
    assert {file: file.read_bytes() for file in before} == before
    merged = merge_clusters(after, [2, whole])
    assert (merged.curated.clusters == run.assignments.clusters).all()
    # Number 2 was given, so it stays with what it was.
    split = split_cluster(merged, whole, 2, Registry())
    assert split.curated.numbers == [0, 1, 3]


def test_a_split_that_cannot_be_made_is_refused_and_nothing_is_written(run: SavedRun) -> None:
    for call, said in (
        (lambda: split_cluster(run, 9, 2, Registry()), "has no cluster 9; its clusters are 0, 1"),
        (lambda: split_cluster(run, 0, 31, Registry()), "cannot be cut into 31 parts"),
        (lambda: split_cluster(run, 0, 1, Registry()), "cannot be cut into 1; give a number of parts from 2"),
        (lambda: split_cluster(run, 0, 0, Registry()), "cannot be cut into 0; give a number of parts from 2"),
        (lambda: merge_clusters(run, [0]), "two or more clusters, each named once"),
        (lambda: merge_clusters(run, [0, 0, 1]), "two or more clusters, each named once"),
        (lambda: undo(run), "nothing was decided"),
    ):
        with pytest.raises(EbscError, match=said):
            call()
    (run.path / "manifest").unlink()
    (run.path / "affinity.npz").unlink()
    with pytest.raises(RunDirectoryError, match="a split needs the affinity of the run"):
        split_cluster(SavedRun(run.path), 0, 2, Registry())
    assert not (run.path / DECISIONS).exists()


def test_each_decision_can_be_taken_back(run: SavedRun) -> None:
    named = name_clusters(run, {0: "herbs", 1: "trees"})
    merged = merge_clusters(named, [0, 1])
    back, last = undo(merged)
    assert str(last) == "merge 0 1"
    assert back.curated.names == {0: "herbs", 1: "trees"}
    assert (back.curated.clusters == run.assignments.clusters).all()
    back, last = undo(back)
    assert str(last) == "name 0 = 'herbs', 1 = 'trees'"
    assert back.curated.names == {}


def test_a_damaged_file_is_refused_in_one_line(run: SavedRun) -> None:
    file = merge_clusters(run, [0, 1]).path / DECISIONS
    whole = file.read_bytes()
    tree = json.loads(whole)
    for content in (
        b"",
        whole[:-9],
        whole.replace(b'"numbers":[0,1]', b'"numbers":[1,0]'),
        json.dumps(tree | {"format": "ebsc-decisions-2"}).encode(),
        json.dumps(tree | {"assignments": "0" * 64}).encode(),
        json.dumps(tree | {"decisions": [{"kind": "burn"}]}).encode(),
        json.dumps(tree | {"decisions": [named("../x")]}).encode(),
        json.dumps(tree | {"decisions": [named("x" * 200)]}).encode(),
    ):
        file.write_bytes(content)
        with pytest.raises(RunDirectoryError, match=r"decisions\.json is damaged \(.*remove it") as error:
            _ = SavedRun(run.path).curated
        assert "\n" not in str(error.value)
    file.unlink()
    file.symlink_to(run.path / "run.toml")
    with pytest.raises(RunDirectoryError, match="is a link"):
        _ = SavedRun(run.path).curated


CALLS: list[Callable[[SavedRun], object]] = [
    lambda run: name_clusters(run, {1: "trees"}),
    lambda run: merge_clusters(run, [0, 1]),
    lambda run: split_cluster(run, 1, 2, Registry()),
    undo,
]


@pytest.mark.parametrize("second", CALLS)
@pytest.mark.parametrize("first", CALLS)
def test_of_two_programs_that_decide_at_once_none_loses_what_the_other_wrote(
    run: SavedRun, first: Callable[[SavedRun], object], second: Callable[[SavedRun], object]
) -> None:
    name_clusters(run, {0: "herbs"})
    one, other = SavedRun(run.path), SavedRun(run.path)
    assert one.decisions == other.decisions
    first(one)
    written = (run.path / DECISIONS).read_bytes()
    with pytest.raises(RunDirectoryError, match=r"another program has decided about .* read the run again"):
        second(other)
    assert (run.path / DECISIONS).read_bytes() == written


def test_of_many_threads_that_decide_at_once_one_is_heard_each_time(run: SavedRun) -> None:
    def decide(name: str) -> bool:
        try:
            name_clusters(SavedRun(run.path), {0: name})
        except RunDirectoryError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        heard = sum(pool.map(decide, [f"name {i}" for i in range(40)]))
    assert len(SavedRun(run.path).decisions) == heard > 0


def test_a_file_system_without_locks_takes_decisions(run: SavedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError("no locks")

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", refuse)
    assert name_clusters(run, {0: "herbs"}).curated.names == {0: "herbs"}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assignments = tmp_path / "assignments.csv"
    assignments.write_text("image,cluster,confidence\n")
    made = [Naming(names=[Name(number=0, name="é")]), Split(number=0, parts=[Part(number=1, rows=[0])])]
    write_decisions(tmp_path / DECISIONS, assignments, made)
    assert read_decisions(tmp_path / DECISIONS, assignments) == made
