"""Weights on disk: everything comes back, or nothing is touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ebsc_core.utils.errors import DataError
from ebsc_core.utils.weights import read_weights, save_weights


def load_weights(module: nn.Module, path: Path) -> None:
    module.load_state_dict(read_weights(module, path))


def network(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


def trained(width: int = 4) -> nn.Module:
    module = network(width)
    module(torch.randn(20, 3) * 5 + 2)  # moves the running statistics
    return module


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_weights(trained(), path)
    return path


def test_parameters_and_batch_norm_statistics_come_back(tmp_path: Path) -> None:
    one, other = trained(), network()
    save_weights(one, tmp_path / "w.safetensors")
    load_weights(other, tmp_path / "w.safetensors")
    assert same(state(one), state(other))
    assert int(other.state_dict()["1.num_batches_tracked"]) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]


def test_transposed_and_channels_last_weights_come_back(tmp_path: Path) -> None:
    one, other = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last), nn.Conv2d(3, 4, 3)
    save_weights(one, tmp_path / "w.safetensors")
    load_weights(other, tmp_path / "w.safetensors")
    assert same(state(one), state(other))


def test_shared_weights_come_back(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        module[1].weight = module[0].weight
        return module

    one, other = tied(), tied()
    save_weights(one, tmp_path / "w.safetensors")
    load_weights(other, tmp_path / "w.safetensors")
    assert same(state(one), state(other))


@pytest.mark.parametrize(
    "other",
    [
        lambda: network(5),
        lambda: nn.Sequential(*network(), nn.Linear(2, 2)),
        lambda: nn.Sequential(*list(network())[:2]),
        lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 7)),
    ],
    ids=["other width", "more layers", "fewer layers", "other last layer"],
)
def test_another_architecture_is_refused_and_left_as_it_was(
    path: Path, other: Callable[[], nn.Module]
) -> None:
    module = other()
    before = state(module)
    with pytest.raises(DataError, match="does not fit Sequential") as error:
        load_weights(module, path)
    assert str(path) in str(error.value)
    assert same(before, state(module))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match="damaged") as error:
        load_weights(network(), path)
    assert str(path) in str(error.value)


def test_files_that_hold_no_weights_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.safetensors"
    text.write_text("hello " * 100)
    for path in (text, tmp_path / "missing.safetensors", tmp_path):
        with pytest.raises(DataError, match="damaged or missing"):
            load_weights(network(), path)


def test_failed_writing_leaves_the_earlier_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_weights(trained(), path)
    assert [entry.read_bytes() for entry in path.parent.iterdir()] == [before]


def test_what_cannot_be_written_is_an_os_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise SafetensorError("no space left on device")

    monkeypatch.setattr("ebsc_core.utils.weights.save_file", fail)
    with pytest.raises(OSError, match="no space left"):
        save_weights(network(), tmp_path / "weights.safetensors")
    assert list(tmp_path.iterdir()) == []
