"""Names are printed as they are: whoever copies one from the terminal has the name."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ebsc_core.runs.store.saved import SavedRun

# What rich takes for an emoji, for a style, and for an escape; and a backslash at the end.
ODD = ["x:dog:y.png", "[red]a.png", "[b]c[/b].png", "\\[b]d.png", "back\\", "[/]", ":+1:\\"]
RUN = "run :dog: [b]\\"
FLAGS = ("--n-clusters", "2", "--coefficients", "knn", "--out", RUN)


@pytest.fixture
def run(ebsc, tmp_path: Path) -> SavedRun:
    """A run whose directory has such a name, on 28 rows with such names, all of which have a copy."""
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(14, 6)), 2, 0).astype(np.float32)
    ids = [f"{number}{name}" for name in ODD for number in range(4)]
    np.savez(tmp_path / "rows.npz", features=rows, ids=np.array(ids))
    assert ebsc("cluster", "rows.npz", *FLAGS, "-q").code == 0
    assert ebsc("name", RUN, "0", "[b]herbs").code == 0
    return SavedRun(tmp_path / RUN)


@pytest.mark.parametrize("command", [("outliers",), ("similar", "--top", "27"), ("duplicates",)], ids=str)
def test_names_of_images_are_printed_as_they_are(ebsc, run: SavedRun, command: tuple[str, ...]) -> None:
    name, *flags = command
    image = ["0"] if name == "similar" else []
    done = ebsc(name, RUN, *image, *flags)
    assert done.code == 0, done.err
    shown = {one for one in run.assignments.ids if f"{one} " in done.out or f"{one}:" in done.out}
    assert len(shown) >= 4
    for kind in ("🐶", "👍", "\\\\"):
        assert kind not in done.out
    if name != "duplicates":  # which shows the first groups
        assert {one[1:] for one in shown} == set(ODD)


@pytest.mark.parametrize(
    "words",
    [
        ("runs", "."),
        ("runs", "empty :dog: [b]\\"),
        ("compare", RUN, RUN, "-o", "new :dog: [b]\\"),
        ("report", RUN),
        ("doctor", RUN),
        ("export", RUN, "--table", "new :dog: [b].csv"),
        ("predict", RUN, "rows.npz", "-o", "new :dog: [b]\\"),
        ("features", "show", f"{RUN}/features.h5"),
        ("name", RUN),
        ("tree", RUN),
        ("merge", "other :dog: [b]\\", "--undo"),
        ("cluster", "rows.npz", *FLAGS[:-1], "new :dog: [b]\\"),
    ],
    ids=str,
)
def test_paths_and_names_of_clusters_are_printed_as_they_are(
    ebsc, run: SavedRun, tmp_path: Path, words: tuple[str, ...]
) -> None:
    shutil.copytree(run.path, tmp_path / "other :dog: [b]\\")
    (tmp_path / "empty :dog: [b]\\").mkdir()
    assert ebsc("merge", "other :dog: [b]\\", "0", "1").code == 0
    done = ebsc(*words)
    said = done.out + done.err
    assert done.code == 0, said
    assert ":dog: [b]" in said or "[b]herbs" in said or words[0] == "features"
    for wrong in ("🐶", "\\\\", "[bold]", "[green]", "[yellow]"):
        assert wrong not in said


def test_a_warning_names_the_file_as_it_is(ebsc, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"photos/{number}.png")
    (tmp_path / "photos/x:dog:[b]y.png").write_bytes(b"\x89PNG\r\n")
    flags = ("--backbone", "identity", "--epochs", "0", "--skip-bad-images", *FLAGS)
    done = ebsc("run", "--data", "photos", *flags)
    assert done.code == 0, done.err
    assert "warning: left out unreadable image photos/x:dog:[b]y.png" in done.err
    assert f"run directory: {RUN}\n" in done.out
