"""``ebsc name``, ``merge``, ``split`` and ``move`` on a run, and what other commands make of them."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from ebsc_core.report.page import Page
from ebsc_core.runs.store.saved import SavedRun

DIGITS = ("run", "--backbone", "identity", "--epochs", "0", "--coefficients", "knn", "--cache", "none", "-q")


def lines(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.fixture
def run(ebsc, tmp_path: Path) -> Path:
    assert ebsc(*DIGITS, "--limit", "400", "--n-clusters", "12", "--out", "run").code == 0
    return tmp_path / "run"


def test_new_images_of_a_merged_class_carry_its_name(ebsc, run: Path, tmp_path: Path) -> None:
    """Two clusters whose images are mostly of one class are merged by hand."""
    found = SavedRun(run).assignments
    assert found.labels
    labels = np.array(found.labels)
    main = {
        k: max(set(labels[found.clusters == k]), key=list(labels[found.clusters == k]).count)
        for k in range(12)
    }
    digit = next(one for one in main.values() if list(main.values()).count(one) > 1)
    halves = [k for k, label in main.items() if label == digit]
    assert ebsc("merge", "run", *halves).code == 0
    assert ebsc("name", "run", halves[0], f"digit {digit}").code == 0
    assert ebsc("predict", "run", "digits", "-o", "new.csv", "-q").code == 0
    new = [line for line in lines(tmp_path / "new.csv") if line["image"] not in set(found.ids)]
    of_it = [line for line in new if line["label"] == digit]
    share = np.mean([line["name"] == f"digit {digit}" for line in of_it])
    assert share > 0.8
    assert {line["name"] for line in new} == {"", f"digit {digit}"}
    assert {int(line["cluster"]) for line in new}.isdisjoint(halves[1:])


def test_without_names_nothing_changes(ebsc, run: Path, tmp_path: Path) -> None:
    assert ebsc("predict", "run", "digits", "-o", "before.csv", "-q").code == 0
    assert ebsc("merge", "run", "0", "1").code == 0
    assert "taken back: merge 0 1" in ebsc("merge", "run", "--undo").out
    assert ebsc("predict", "run", "digits", "-o", "after.csv", "-q").code == 0
    assert (tmp_path / "before.csv").read_bytes() == (tmp_path / "after.csv").read_bytes()


def test_names_are_listed_and_read_from_a_file(ebsc, run: Path, tmp_path: Path) -> None:
    (tmp_path / "names.toml").write_text('3 = "herbs"\n5 = "[red]trees"\n')
    assert ebsc("name", "run", "--from", "names.toml").code == 0
    listed = ebsc("name", "run").out
    assert "herbs" in listed
    assert "[red]trees" in listed
    assert ebsc("name", "run", "3", "").code == 0
    assert SavedRun(run).curated.names == {5: "[red]trees"}


@pytest.mark.parametrize(
    "words",
    [
        ("name", "run", "3"),
        ("name", "run", "3", "x", "--undo"),
        ("name", "run", "3", "a/b"),
        ("name", "run", "99", "x"),
        ("name", "run", "--from", "no.toml"),
        ("merge", "run"),
        ("merge", "run", "1"),
        ("merge", "run", "1", "2", "--undo"),
        ("merge", "run", "--undo"),
        ("split", "run"),
        ("split", "run", "99"),
        ("split", "run", "0", "--into", "1"),
        ("move", "run"),
        ("move", "run", "1"),
        ("move", "run", "99", "0"),
        ("move", "run", "1", "no.jpg"),
        ("move", "run", "1", "0", "--from", "some.csv"),
        ("move", "run", "1", "--from", "no.csv"),
        ("move", "run", "1", "0", "--undo"),
        ("move", "run", "--undo"),
        ("name", "nowhere"),
    ],
)
def test_a_mistake_is_one_line(ebsc, run: Path, words) -> None:
    done = ebsc(*words)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert not (run / "decisions.json").exists()


def test_other_commands_stand_the_file_and_doctor_checks_it(ebsc, run: Path) -> None:
    assert ebsc("split", "run", "0", "--into", "3").code == 0
    for command in (("report", "run"), ("compare", "run", "run"), ("runs", "."), ("features", "run")):
        assert ebsc(*command).code == 0
    assert ebsc("doctor", "run").code == 0
    assert ebsc("predict", "run", "digits", "-o", "run/decisions.json").code == 2
    file = run / "decisions.json"
    file.write_bytes(file.read_bytes().replace(b"split", b"spilt"))
    done = ebsc("doctor", "run", "--json")
    assert done.code == 1
    (failed,) = [one["text"] for one in json.loads(done.out)["findings"] if one["status"] == "failed"]
    assert "run/decisions.json is damaged" in failed


def test_images_set_aside_are_in_no_cluster_of_any_output(ebsc, run: Path, tmp_path: Path) -> None:
    assert ebsc("outliers", "run", "--top", "5", "-o", "odd.csv").code == 0
    done = ebsc("move", "run", "none", "--from", "odd.csv")
    assert done.code == 0, done.err
    assert re.search(r"none +│ +5 ", done.out)
    odd = {line["image"] for line in lines(tmp_path / "odd.csv")}
    assert ebsc("export", "run", "--table", "table.csv").code == 0
    aside = [line for line in lines(tmp_path / "table.csv") if line["cluster"] == "-1"]
    assert {line["image"] for line in aside} == odd
    assert {line["confidence"] for line in aside} == {"0.0"}
    assert ebsc("predict", "run", "digits", "-o", "later.csv").code == 0
    assert ebsc("report", "run").code == 0
    assert "or images moved" in (run / "report.html").read_text()


def test_a_report_that_does_not_show_a_decision_yet_is_named(ebsc, run: Path, tmp_path: Path) -> None:
    stale = "report.html shows the clusters as before; to write it again: ebsc report 'my run'\n"
    first = SavedRun(run).assignments.ids[0]
    run.rename(tmp_path / "my run")
    words = [("name", "3", "herbs"), ("merge", "0", "1"), ("split", "2"), ("move", "none", first)]
    for there in (False, True):
        if there:
            assert ebsc("report", "my run").code == 0
        for command, *rest in words:
            for done in (ebsc(command, "my run", *rest), ebsc(command, "my run", "--undo")):
                assert done.code == 0, done.err
                assert done.out.endswith(stale) == there
    assert stale not in ebsc("name", "my run").out


def test_the_report_gives_no_advice_against_a_decision(ebsc, run: Path) -> None:
    def said() -> str:
        saved = SavedRun(run)
        saved.metrics["label_free"]["connected_components"] = 10  # fewer than the run has clusters
        return Page(saved, None).html()

    against = ("several groups may have merged", "less than a fifth", "pieces without", "empty")
    before = [text in said() for text in against]
    sizes = SavedRun(run).curated.sizes()
    large = sorted(sizes, key=sizes.__getitem__)[-6:]
    assert ebsc("merge", "run", *large).code == 0
    left = SavedRun(run).curated.sizes()
    assert left[min(large)] > 3 * np.median(list(left.values()))
    assert [text in said() for text in against] == before == [False] * 4
    assert ebsc("merge", "run", *left).code == 0  # to a single one
    assert not any(text in said() for text in against)


def purity(labels: np.ndarray, parts: np.ndarray) -> float:
    """The share of images that are of the main class of their part."""
    main = [np.unique(labels[parts == part], return_counts=True)[1].max() for part in set(parts)]
    return sum(main) / len(labels)


def test_a_split_of_a_sample_takes_all_images_along(ebsc, tmp_path: Path) -> None:
    sample = ("--limit", "500", "--dictionary-size", "200", "--n-clusters", "5")
    assert ebsc(*DIGITS, *sample, "--out", "run").code == 0
    before = SavedRun(tmp_path / "run").assignments
    labels = np.array(before.labels)
    pure = {k: purity(labels[before.clusters == k], np.zeros(np.sum(before.clusters == k))) for k in range(5)}
    mixed = min(pure, key=pure.__getitem__)  # it holds several classes
    size = int((before.clusters == mixed).sum())
    done = ebsc("split", "run", mixed)
    assert done.code == 0, done.err
    assert "images outside the clustered sample join" in done.out
    after = SavedRun(tmp_path / "run").curated.clusters
    moved = after != before.clusters
    assert set(after[moved]) == {5}
    assert 0 < moved.sum() <= size / 2
    # Images of one class stay together, whether or not they are in the sample.
    inside = before.clusters == mixed
    assert purity(labels[inside], after[inside]) > pure[mixed] + 0.2


def test_a_split_of_held_out_images_is_refused(ebsc, tmp_path: Path) -> None:
    flags = ("--limit", "200", "--set", "protocol=train-test", "--n-clusters", "3")
    assert ebsc(*DIGITS, *flags, "--out", "run").code == 0
    done = ebsc("split", "run", "0")
    assert done.code == 2
    assert "held out" in done.err
    assert "--set protocol=all" in done.err


def test_the_tree_shows_names_and_sizes(ebsc, run: Path) -> None:
    assert ebsc("name", "run", "3", "[b]herbs").code == 0
    assert ebsc("merge", "run", "0", "1").code == 0
    lines = ebsc("tree", "run").out.splitlines()
    assert len(lines) == 2 * 11 - 1
    assert lines[0].endswith("%, 400 images")
    assert sum("3 [b]herbs, " in line for line in lines) == 1
    nodes = json.loads(ebsc("tree", "run", "--json").out)
    assert sorted(node["cluster"] for node in nodes if node["cluster"] is not None) == [0, *range(2, 12)]
    assert nodes[-1]["size"] == 400


def test_of_new_images_the_largest_shares_are_the_surest(ebsc, run: Path, tmp_path: Path) -> None:
    assert ebsc("predict", "run", "digits", "-o", "new.csv", "-q", "--top", "3").code == 0
    assert ebsc("predict", "run", "digits", "-o", "plain.csv", "-q").code == 0
    rows, plain = lines(tmp_path / "new.csv"), lines(tmp_path / "plain.csv")
    added = ["share", "cluster_2", "share_2", "cluster_3", "share_3"]
    assert list(rows[0]) == [*plain[0], *added]
    assert [{name: row[name] for name in plain[0]} for row in rows] == plain
    assert all(float(row["share"]) >= float(row["share_2"] or 0) for row in rows)
    main = {}
    for cluster in {row["cluster"] for row in rows}:
        labels = [row["label"] for row in rows if row["cluster"] == cluster]
        main[cluster] = max(set(labels), key=labels.count)
    ordered = sorted(rows, key=lambda row: float(row["share"]))
    right = [row["label"] == main[row["cluster"]] for row in ordered]
    half = len(right) // 2
    assert np.mean(right[half:]) > np.mean(right[:half]) + 0.05
