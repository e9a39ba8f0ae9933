"""Whole runs on real images: a real ResNet, real artefacts, real reuse."""

from __future__ import annotations

import csv
import json
import re
import tomllib
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.torch import load_file

from ebsc_core.data.features.forms import ROW_FORMS
from ebsc_core.report.formatting import percent

# Neither the size of the network nor the steps of refinement change what a run leaves, repeats and reuses.
QUICK = ("--set", "refine.steps=5")
SMALL = ("--limit", "120", "--epochs", "2", "--batch-size", "40", "--backbone", "resnet10t", *QUICK)
JOINT = ("--set", "joint.form=reconstruction")


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "assignments.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("backbone", "form", "stage", "trained"),
    [
        ("resnet10t", (), "warm-up", ()),
        ("resnet10t", JOINT, "joint", ("joint",)),
        pytest.param("resnet18", (), "warm-up", (), marks=pytest.mark.slow),
    ],
)
def test_run_leaves_every_artefact(ebsc, tmp_path, with_reports, backbone, form, stage, trained):
    done = ebsc("run", *SMALL, *form, "--backbone", backbone, "--objective", "simclr", "--out", "run")
    assert done.code == 0, done.err
    run = tmp_path / "run"
    names = {path.name for path in run.iterdir()}
    files = {"run.toml", "assignments.csv", "metrics.json", "features.h5", "affinity.npz", "report.html"}
    assert names == {*files, "manifest", "checkpoints"}
    weights = {path.name for path in (run / "checkpoints").iterdir()}
    assert weights == {f"{m}.safetensors" for m in ("backbone", "objective", "coefficients", *trained)}
    backbone = load_file(run / "checkpoints" / "backbone.safetensors")
    assert backbone["model.conv1.weight"].shape == (64, 1, 3, 3)
    with h5py.File(run / "features.h5") as file:
        assert file["features"].shape == (120, 512)
        assert file["embeddings"].shape == (120, 128)
        assert [int(row["label"]) for row in rows_of(run)] == file["labels"][:].tolist()
        assert [row["image"] for row in rows_of(run)] == [name.decode() for name in file["ids"][:]]
    metrics = json.loads((run / "metrics.json").read_text())
    assert [epoch["stage"] for epoch in metrics["training"]] == [stage] * 2
    assert 0 < metrics["scores"]["acc"] <= 1
    accuracy = f"{100 * metrics['scores']['knn_accuracy']:.1f} %"
    assert re.search(rf"knn-accuracy\W+{accuracy}", done.out)
    report = (run / "report.html").read_text()
    assert "k-NN" in report
    assert percent(metrics["scores"]["knn_accuracy"], 1) in report
    assert sum(metrics["label_free"]["cluster_sizes"]) == 120
    config = tomllib.loads((run / "run.toml").read_text())
    assert config["provenance"]["parts"]["objective"].startswith("ebsc ")
    assert config["objective"]["temperature"] > 0
    assert config["joint"]["weight"] > 0
    assert ("joint phase   energy" in done.out) == ("joint training" in done.out) == bool(trained)
    assert "run directory: run\nreport: run/report.html\n" in done.out


def test_clusters_and_pixels_of_the_joint_phase_belong_to_the_features(ebsc, tmp_path):
    form = (*SMALL, "--set", "joint.form=neighbors")
    runs = {
        "a": ("--n-clusters", "10"),
        "b": ("--n-clusters", "10"),
        "c": ("--n-clusters", "9"),
        "d": ("--n-clusters", "10", "--set", "joint.pixels=false"),
    }
    done = {name: ebsc("run", *form, *flags, "--out", name) for name, flags in runs.items()}
    assert [run.code for run in done.values()] == [0] * 4, done["a"].err
    assert ["features reused" in run.out for run in done.values()] == [False, True, False, False]
    assert "by neighbors" in done["a"].out
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "b")


def test_a_number_of_clusters_that_is_not_known_needs_no_partition(ebsc, tmp_path):
    done = ebsc("run", *SMALL, "--set", "joint.form=neighbors", "--n-clusters", "auto", "--out", "run")
    assert done.code == 0, done.err
    assert "by neighbors" in done.out


def test_another_clusterer_or_coefficient_model_reuses_the_features(ebsc, tmp_path):
    first = ebsc("run", *SMALL, "--out", "first")
    assert first.code == 0, first.err
    for name, flags in {"a": ("--clusterer", "k-subspaces"), "b": ("--coefficients", "knn")}.items():
        second = ebsc("run", *SMALL, *flags, "--out", name)
        assert second.code == 0, second.err
        assert "features reused" in second.out
        assert "training:" not in second.out
        one, two = (h5py.File(tmp_path / run / "features.h5") for run in ("first", name))
        assert np.array_equal(one["features"][:], two["features"][:])
        assert (tmp_path / name / "checkpoints/backbone.safetensors").exists()
    other = ebsc("run", *SMALL, "--objective", "byol", "--out", "c")
    assert other.code == 0, other.err
    assert "features reused" not in other.out


def test_same_seed_gives_the_same_assignments_trained_or_reused(ebsc, tmp_path):
    for name, cache in (("a", "none"), ("b", "kept"), ("c", "kept")):
        assert ebsc("run", *SMALL, "--cache", cache, "--out", name).code == 0
    texts = {(tmp_path / name / "assignments.csv").read_bytes() for name in "abc"}
    assert len(texts) == 1
    assert ebsc("run", *SMALL, "--seed", "1", "--out", "d").code == 0
    assert (tmp_path / "d/assignments.csv").read_bytes() not in texts


def test_run_toml_repeats_the_run(ebsc, tmp_path):
    given = ("--objective", "byol", "--set", "objective.momentum=0.9", "--set", "views.rotate=3")
    assert ebsc("run", *SMALL, *given, "--out", "first").code == 0
    again = ebsc("run", "--config", "first/run.toml", "--out", "again")
    assert again.code == 0, again.err
    assert "features reused" in again.out
    resolved = tomllib.loads((tmp_path / "first/run.toml").read_text())
    assert resolved["express"] == "features"
    first, second = (tmp_path / name / "assignments.csv" for name in ("first", "again"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("damage", ["truncated", "another digest"])
def test_a_bad_cache_entry_is_recomputed_and_said_so(ebsc, tmp_path, damage):
    flags = ("--backbone", "identity", "--epochs", "0", "--limit", "200", "--cache", "cache", *QUICK)
    assert ebsc("run", *flags, "--out", "first").code == 0
    (file,) = (tmp_path / "cache").glob("*/features.h5")
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:1000])
    else:
        with h5py.File(file, "a") as opened:
            opened.attrs["key"] = "0" * 24
    second = ebsc("run", *flags, "--out", "second")
    assert second.code == 0
    assert "features.h5" in second.err
    assert "anew" in second.err
    third = ebsc("run", *flags, "--out", "third")
    assert "features reused" in third.out
    assert third.err == ""


@pytest.mark.slow
def test_pixels_without_training_beat_chance_by_far(ebsc, tmp_path):
    done = ebsc("run", "--backbone", "identity", "--epochs", "0", "--out", "run")
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["scores"]["acc"] > 0.85
    assert metrics["training"] == []


def test_what_a_coefficient_model_could_not_finish_is_a_warning(ebsc, tmp_path):
    pixels = (
        "run",
        "--backbone",
        "identity",
        "--epochs",
        "0",
        "--limit",
        "200",
        "--coefficients",
        "elastic-net",
    )
    done = ebsc(*pixels, "--set", "coefficients.max_rounds=1", "--out", "run")
    assert done.code == 0
    assert "rows are not solved to the end after 1 rounds; raise coefficients.max_rounds" in done.err
    assert len(json.loads((tmp_path / "run/metrics.json").read_text())["warnings"]) == 1
    assert ebsc(*pixels, "--out", "enough").err == ""


def test_how_much_a_search_finds_is_said(ebsc, tmp_path):
    pixels = ("run", "--backbone", "identity", "--epochs", "0", "--limit", "600", "--coefficients", "knn")
    cells = ("--set", "search.method=cells", "--set", "search.cell_rows=20")
    found = {}
    for out, flags in {"exact": (), "cells": cells, "few": (*cells, "--set", "search.probes=1")}.items():
        done = ebsc(*pixels, *flags, "--out", out)
        assert done.code == 0, done.err
        found[out] = json.loads((tmp_path / out / "metrics.json").read_text())["search"]
        assert ("raise search.probes, which is 1" in done.err) == (out == "few")
    assert found["exact"] == {"method": "exact", "recall": None}
    assert found["cells"]["method"] == "cells"
    assert found["few"]["recall"] < 0.9 <= found["cells"]["recall"] < 1


@pytest.mark.parametrize(
    ("model", "by_default", "changed"), [("energy", "neighbors", True), ("knn", False, "neighbors")]
)
def test_whitening_is_said_recorded_and_changes_the_clusters(ebsc, tmp_path, model, by_default, changed):
    pixels = ("run", "--backbone", "identity", "--epochs", "0", "--limit", "300", "--coefficients", model)
    short = ("--set", "refine.steps=5")
    said = f"{model} on {ROW_FORMS[by_default]} features"
    assert said in ebsc(*pixels, *short, "--out", "auto").out
    other = ebsc(*pixels, *short, "--set", f"whiten={str(changed).lower()}", "--out", "other")
    assert f"{model} on {ROW_FORMS[changed]} features" in other.out
    runs = [tmp_path / name for name in ("auto", "other")]
    said = [tomllib.loads((run / "run.toml").read_text())["whiten"] for run in runs]
    assert said == [by_default, changed]
    one, two = ((run / "assignments.csv").read_bytes() for run in runs)
    assert one != two
    assert ebsc("run", "--config", "auto/run.toml", "--out", "again").code == 0
    assert (tmp_path / "again/assignments.csv").read_bytes() == one


@pytest.mark.parametrize("clusterer", ["spectral", pytest.param("k-subspaces", marks=pytest.mark.slow)])
def test_the_number_of_clusters_is_found_and_recorded(ebsc, tmp_path, clusterer):
    pixels = ("run", "--backbone", "identity", "--epochs", "0", "--limit", "600", "--coefficients", "knn")
    pixels = (*pixels, "--set", "whiten=true", "--clusterer", clusterer)
    done = ebsc(*pixels, "--n-clusters", "auto", "--out", "found")
    assert done.code == 0, done.err
    assert "number of clusters, with its score: " in done.out
    metrics = json.loads((tmp_path / "found/metrics.json").read_text())
    config = tomllib.loads((tmp_path / "found/run.toml").read_text())
    assert 8 <= metrics["n_clusters"]["chosen"] <= 12
    assert config["n_clusters"] == metrics["n_clusters"]["chosen"]
    assert len(metrics["label_free"]["cluster_sizes"]) == config["n_clusters"]
    assert config["top_k"] == 6
    assert ebsc("run", "--config", "found/run.toml", "--out", "again").code == 0
    found, again = ((tmp_path / name / "assignments.csv").read_bytes() for name in ("found", "again"))
    assert found == again
    assert json.loads((tmp_path / "again/metrics.json").read_text())["n_clusters"] is None


def test_the_jointly_trained_model_goes_on_if_it_is_used_to_such_rows(ebsc):
    tiny = ("run", "--backbone", "resnet10t", "--limit", "100", "--epochs", "1", "--batch-size", "50")
    tiny = (*tiny, *JOINT, "--set", "refine.steps=2")
    said = {
        "whiten=true": "goes on from its joint training",
        "": "is built anew",  # and finds the features of the first
        "joint.whiten=false": "is built anew",  # and does not
        "coefficients.hidden=7": "is built anew",  # its form differs, too
    }
    for change, expected in said.items():
        done = ebsc(*tiny, *(["--set", change] if change else []), "--out", f"run {change}")
        assert done.code == 0, done.err
        assert ("features reused" in done.out) == (change in ("", "coefficients.hidden=7"))
        for phrase in ("goes on from its joint training", "is built anew"):
            assert (phrase in done.out) == (phrase == expected)


def test_what_has_no_effect_is_said_before_it_begins(ebsc):
    given = ("joint.share=0.3", "refine.steps=9", "search.probes=3", "test_share=0.4")
    pixels = ("run", "--backbone", "identity", "--limit", "60", "--epochs", "0", "--no-report")
    settings = [word for setting in ("joint.form=none", *given) for word in ("--set", setting)]
    done = ebsc(*pixels, *settings, "--coefficients", "knn", "--out", "run")
    assert done.code == 0, done.err
    lines = [line for line in done.out.splitlines() if line.startswith("no effect")]
    for setting in given:
        assert sum(setting.partition("=")[0] in line for line in lines) == 1
    assert "no effect" not in ebsc(*pixels, "--out", "plain").out
    assert "no effect" not in ebsc("run", "--config", "plain/run.toml", "--out", "again").out


def test_a_backbone_with_nothing_to_train_skips_training_and_says_so(ebsc):
    done = ebsc("run", "--backbone", "identity", "--limit", "200", *QUICK)
    assert done.code == 0, done.err
    assert "nothing to train" in done.out


def test_folder_without_labels_needs_a_number_of_clusters_and_gets_no_scores(ebsc, tmp_path):
    from PIL import Image
    from sklearn.datasets import load_digits

    (tmp_path / "photos").mkdir()
    for i, pixels in enumerate(load_digits().images[:60]):
        image = Image.fromarray((pixels * 15).astype(np.uint8)).resize((20 + i % 3, 24))
        image.save(tmp_path / "photos" / f"img {i}.jpg")
    refused = ebsc("run", "--data", "photos", "--epochs", "1")
    assert refused.code == 2
    assert "--n-clusters" in refused.err
    quick = ("--backbone", "resnet10t", "--epochs", "1", *QUICK)
    done = ebsc("run", "--data", "photos", *quick, "--n-clusters", "4", "--out", "run")
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["scores"] is None
    assert len(metrics["label_free"]["cluster_sizes"]) == 4
    rows = rows_of(tmp_path / "run")
    assert rows[0]["image"] == "img 0.jpg"
    assert "label" not in rows[0]
    assert all(0 <= float(row["confidence"]) <= 1 for row in rows)


@pytest.mark.parametrize(
    ("file", "flags"),
    [
        pytest.param("coil20.npz", ("--n-clusters", "20", "--limit", "200"), marks=pytest.mark.slow),
        ("cifar10-test.zip", ("--limit", "200")),
    ],
)
def test_real_images_of_other_kinds(ebsc, data_dir, tmp_path, file, flags):
    small = ("--backbone", "resnet10t", "--epochs", "1", "--batch-size", "64", *QUICK)
    done = ebsc("run", "--data", data_dir / file, *flags, *small, "--out", "run")
    assert done.code == 0, done.err
    assert len(rows_of(tmp_path / "run")) == 200


def test_quiet_prints_the_result_only(ebsc):
    done = ebsc("run", "--backbone", "identity", "--limit", "100", *QUICK, "--quiet", "--out", "run")
    assert done.code == 0
    assert done.out.splitlines()[0].strip() == "Result"
    assert done.out.splitlines()[-1] == "run directory: run"


def test_the_other_form_of_the_affinity_cuts_another_graph(ebsc, tmp_path):
    flags = ("--backbone", "identity", "--epochs", "0", "--limit", "300", "--coefficients", "knn")
    assert ebsc("run", *flags, "--out", "one").code == 0
    form = ("--set", "affinity.form=nearest_neighbors", "--set", "affinity.n_neighbors=5")
    done = ebsc("run", *flags, *form, "--out", "other")
    assert done.code == 0, done.err
    one, other = (json.loads((tmp_path / out / "metrics.json").read_text()) for out in ("one", "other"))
    assert one["eigenvalues"] != other["eigenvalues"]
    assert min(one["scores"]["acc"], other["scores"]["acc"]) > 0.5
    assert tomllib.loads((tmp_path / "other/run.toml").read_text())["affinity"]["n_neighbors"] == 5
    refused = ebsc("run", *flags, *form, "--set", "affinity.n_neighbors=300")
    assert refused.code == 2
    assert refused.err == (
        "ebsc: error: affinity.n_neighbors is 300 but each of 300 images has only 299 others\n"
    )


def test_what_the_features_cost_is_known_when_they_are_reused(ebsc, tmp_path):
    for out, model in (("first", "knn"), ("second", "energy")):
        assert ebsc("run", *SMALL, "--coefficients", model, "--out", out).code == 0
    first, second = (json.loads((tmp_path / out / "metrics.json").read_text()) for out in ("first", "second"))
    assert second["features_cost"] == first["features_cost"]
    assert first["features_cost"]["seconds"]["training"] == pytest.approx(
        first["seconds"]["training"], abs=0.01
    )
    assert "training" not in second["seconds"]
    assert "features" not in second["seconds"]


@pytest.mark.slow
def test_the_main_job_clusters_digits(ebsc, tmp_path):
    """One seed; the bound lies below the mean measured over seeds, to tell broken from noisy."""
    done = ebsc("run", "--backbone", "resnet18", "--objective", "simclr", "--out", "run")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "run/metrics.json").read_text())["scores"]["acc"] >= 0.93


def test_a_sample_is_clustered_and_the_others_join_it(ebsc, tmp_path):
    pixels = ("run", "--backbone", "identity", "--epochs", "0", "--set", "refine.steps=5")
    done = ebsc(*pixels, "--dictionary-size", "600", "--out", "sample")
    assert done.code == 0, done.err
    assert "600 of 1797 images are clustered" in done.out
    metrics = json.loads((tmp_path / "sample/metrics.json").read_text())
    assert metrics["dictionary_size"] == 600
    assert metrics["scores"]["acc"] > 0.8
    assert 0.8 < metrics["label_free"]["dictionary_agreement"] <= 1
    assert sum(metrics["label_free"]["cluster_sizes"]) == len(rows_of(tmp_path / "sample")) == 1797
    again = ebsc("run", "--config", "sample/run.toml", "--out", "again")
    assert again.code == 0, again.err
    first, second = (tmp_path / name / "assignments.csv" for name in ("sample", "again"))
    assert first.read_bytes() == second.read_bytes()
    assert ebsc(*pixels, "--out", "all").code == 0
    metrics = json.loads((tmp_path / "all/metrics.json").read_text())
    assert metrics["dictionary_size"] is None
    assert "dictionary_agreement" not in metrics["label_free"]
