"""What may be written over, and what stays."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ebsc_core.utils.errors import DataError
from ebsc_core.utils.files import check_writable, written_whole


def test_a_pipe_or_device_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(DataError, match="not a file"):
        check_writable(path)
    with pytest.raises(DataError, match="not a file"), written_whole(path) as temporary_path:
        temporary_path.write_text("x")
    assert path.is_fifo()


def test_a_link_stays_one_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    with written_whole(tmp_path / "link") as temporary_path:
        temporary_path.write_text("x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "x"


def test_what_is_read_is_not_written_over(ebsc, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 5)))
    flags = ("--n-clusters", "2", "--coefficients", "knn")
    assert ebsc("cluster", "x.npy", *flags, "--out", "run").code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for out in ("x.npy", "run/assignments.csv", "run/run.toml"):
        code, _, err = ebsc("predict", "run", "x.npy", "-o", out)
        assert (code, err.count("\n")) == (2, 1), err
        assert "would be lost" in err
    assert ebsc("compare", "run", "run", "-o", "run/metrics.json").code == 2
    assert ebsc("predict", "run", "x.npy", "-o", "x.npy/new.csv").code == 2
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    for _ in range(2):  # over one's own
        assert ebsc("predict", "run", "x.npy", "-o", "run/new.csv").code == 0
