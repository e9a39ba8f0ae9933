"""The scripts of benchmarks/speed that compare training, at sizes that take no time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SPEED = Path(__file__).resolve().parents[2] / "benchmarks" / "speed"


def script(name: str, *arguments: Any) -> dict[str, Any]:
    """Run a script and return the record it leaves."""
    words = [sys.executable, str(SPEED / name), *map(str, arguments)]
    subprocess.run(words, check=True, capture_output=True, timeout=300)
    return json.loads(Path(arguments[-1]).read_text(encoding="utf-8"))


def test_views_are_timed_beside_torchvision_s(tmp_path: Path) -> None:
    tiny = ["--size", 12, "--batch", 4, "--batches", 1, "--rounds", 1]
    record = script("views.py", *tiny, "--out", tmp_path / "r.json")
    rates = record["views_per_second"]
    assert all(rates[name]["cpu"] > 0 for name in ("ours", "ours, exact hue", "torchvision, tensors"))
    assert isinstance(rates["kornia"], dict) or "kornia" in rates["kornia"]  # it says what is missing
    assert record["times_faster"]["ours"].keys() >= {"torchvision, tensors", "torchvision, PIL images"}


@pytest.mark.slow
def test_steps_are_timed_beside_lightly_s(tmp_path: Path) -> None:
    tiny = ["--batch", 4, "--stem", "imagenet", "--rounds", 1]
    record = script("simclr.py", *tiny, "--out", tmp_path / "r.json")
    assert all("failure" not in side for side in record["sides"].values())
    assert record["times_faster"]["ours"].keys() == {"lightly, fp32", "lightly, bf16"}
    assert record["left_out"].keys() == {"solo-learn"}
    assert 0 < record["share_of_product"]["ours, fp32"]["cpu"] < 2


@pytest.mark.parametrize("phase", [[], ["--joint"]])
def test_a_profile_adds_up(tmp_path: Path, phase: list[str]) -> None:
    tiny = ["--batch", 4, "--steps", 1, "--size", 8, "--precision", "fp32"]
    record = script("step_profile.py", *phase, *tiny, "--out", tmp_path / "r.json")
    assert record["stages"].keys() == {"views", "backbone", "losses", "backward", "optimiser"}
    assert sum(record["stages"].values()) == pytest.approx(1, abs=0.001)
    assert all(share >= 0 for share in record["stages"].values())
    assert any("convolution" in name for name in record["operators"])


@pytest.mark.slow
def test_streaming_is_timed_beside_memory(tmp_path: Path) -> None:
    tiny = ["--files", 60, "--read", 20, "--trained", 16, "--rounds", 1]
    record = script("stream.py", *tiny, "--out", tmp_path / "r.json")
    assert record["start"]["images"] == 60
    assert record["start"]["seconds_from_opening"]["first batch"]["wall"] > 0
    rates = record["in_turn"]
    assert all(rates[work][kind]["images_per_s"] > 0 for work in rates for kind in ("memory", "streamed"))
