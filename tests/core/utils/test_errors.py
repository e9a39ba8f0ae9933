"""Lack of memory is told apart, whoever reports it, and is one line."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ebsc_core.utils.errors import is_out_of_memory, text_of, told

resource = pytest.importorskip("resource")
ALLOCATOR = "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"


def too_large() -> Exception:
    try:
        np.empty(1 << 50)
    except Exception as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (too_large(), True),
        (RuntimeError(ALLOCATOR), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("could not create a primitive descriptor for the inner product forward"), False),
        (RuntimeError("can't start new thread"), True),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.EAGAIN, "Resource temporarily unavailable"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ImportError("No module named 'acme'"), False),
        (SystemError("error return without exception set"), True),
        (SystemError("bad argument to internal function"), False),
        (ValueError("not enough memory"), False),
    ],
)
def test_out_of_memory_is_told_apart(error: Exception, is_one: bool) -> None:
    assert is_out_of_memory(error) == is_one


def test_an_error_without_text_is_called_by_its_type() -> None:
    assert [text_of(error) for error in (ValueError(), OSError(" \n"))] == ["ValueError", "OSError"]
    assert text_of(ValueError("\nfirst\nsecond")) == "first second"
    assert [told(error) for error in (MemoryError(), KeyError(3))] == ["MemoryError", "KeyError: 3"]


@pytest.mark.parametrize("name", ["images.npz", "images.npy", "images.zip", "features.npy"])
def test_a_sound_file_is_not_called_unreadable_where_memory_is_short(
    ebsc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    images = np.random.default_rng(0).integers(0, 255, (20, 8, 8), np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "features.npy", np.ones((20, 4), np.float32))
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for at, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / "one.png")
            archive.write(tmp_path / "one.png", f"{at}.png")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    for place in ("numpy.load", "numpy.memmap", "zipfile.ZipFile.__init__"):
        monkeypatch.setattr(place, fail)
    command = ("cluster", name) if name == "features.npy" else ("run", "--data", name, "--epochs", "0")
    done = ebsc(*command, "--n-clusters", "3", "--out", "run")
    assert done.code != 0
    assert "not a readable" not in done.err
    assert "memory" in done.err


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError(ALLOCATOR), too_large()])
def test_a_command_without_memory_says_so_in_one_line_and_leaves_nothing(
    ebsc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    np.save(tmp_path / "x.npy", np.ones((60, 5)))
    monkeypatch.setattr("ebsc_core.runs.clustering_stage.ClusteringStage.run", fail)
    done = ebsc("cluster", "x.npy", "--n-clusters", "2", "--out", "run", "-q")
    assert done.code == 2
    assert done.err.startswith("ebsc: error: not enough memory; end other programs")
    assert "--dictionary-size" in done.err
    assert done.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


LIMITED = """
import resource, sys
import torch
from PIL import Image
import ebsc_cli.console, ebsc_core.runs.run  # without memory for an import, Python itself may fail
from ebsc_cli.app import main
from ebsc_cli.commands import load

load("cluster")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = used + (int(sys.argv.pop(1)) << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
@pytest.mark.parametrize("more", [20, 100])
def test_a_limit_of_the_address_space_is_one_line(tmp_path: Path, more: int) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(6000, 1000)))
    words = ["cluster", "x.npy", "--n-clusters", "2", "--coefficients", "knn", "--out", "run", "-q"]
    command = [sys.executable, "-c", LIMITED, str(more), *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 2
    assert done.stderr.startswith("ebsc: error: not enough memory"), done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]
