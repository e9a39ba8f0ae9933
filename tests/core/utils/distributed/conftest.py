"""Let two processes compute together, once for all tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from safetensors.torch import load_file
from torch import Tensor


class Computed(NamedTuple):
    """Hold the results of each process, and those of a single process."""

    ranks: list[dict[str, Tensor]]
    alone: dict[str, Tensor]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Computed:
    folder = tmp_path_factory.mktemp("ranks")
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    worker = [sys.executable, str(Path(__file__).with_name("worker.py")), str(folder)]
    processes = [
        subprocess.Popen(
            worker,
            env=os.environ | meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    ranks = [load_file(folder / f"{rank}.safetensors") for rank in range(2)]
    return Computed(ranks, load_file(folder / "alone.safetensors"))
