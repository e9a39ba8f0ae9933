from __future__ import annotations

import pytest
import torch

from ebsc_core.utils.device import own_device, resolve_device
from ebsc_core.utils.errors import DeviceError
from ebsc_core.utils.launch import count_devices, launch

CPU = torch.device("cpu")


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("no_cuda")
def test_auto_is_the_cpu_where_there_is_nothing_else() -> None:
    assert resolve_device("auto") == CPU


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("name", "expected"), [("auto", "cuda"), ("cuda", "cuda"), ("cuda:1", "cuda:1"), ("cpu", "cpu")]
)
def test_devices_that_are_there(name: str, expected: str) -> None:
    assert resolve_device(name) == torch.device(expected)


@pytest.mark.usefixtures("no_cuda")
@pytest.mark.parametrize(
    "name", ["cuda", "cuda:0", "cuda:99", "mps", "gpu", "cuda:x", "cuda:", "CUDA", "cpu:7", ""]
)
def test_a_device_that_is_not_there_is_one_line(name: str) -> None:
    with pytest.raises(DeviceError) as caught:
        resolve_device(name)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


# 256 and 999 are beyond what PyTorch stores of an index.
@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("name", ["cuda:2", "cuda:99", "cuda:256", "cuda:999", "cuda:-1", "cuda:x"])
def test_an_index_beyond_the_last_gpu_is_refused(name: str) -> None:
    with pytest.raises(DeviceError, match=name):
        resolve_device(name)


def launched(monkeypatch: pytest.MonkeyPatch, local_rank: int, here: int) -> None:
    names = {"WORLD_SIZE": 8, "LOCAL_WORLD_SIZE": here, "LOCAL_RANK": local_rank, "RANK": 4 + local_rank}
    for name, value in names.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.usefixtures("two_gpus")
def test_each_process_of_a_machine_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_device("cuda:1") == torch.device("cuda:1")
    for local_rank in range(2):
        launched(monkeypatch, local_rank, here=2)
        assert own_device("cuda") == own_device("auto") == torch.device("cuda", local_rank)
        assert own_device("cpu") == CPU


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("local_rank", [0, 3])
def test_processes_without_a_gpu_of_their_own_are_refused(
    monkeypatch: pytest.MonkeyPatch, local_rank: int
) -> None:
    launched(monkeypatch, local_rank, here=4)
    with pytest.raises(DeviceError, match=r"4 processes .* 2 CUDA devices.*nproc-per-node"):
        own_device("cuda")
    with pytest.raises(DeviceError, match=r"`device=cuda:1`: .* use cuda"):
        own_device("cuda:1")


def test_metal_is_no_device_of_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    launched(monkeypatch, 0, here=2)
    with pytest.raises(DeviceError, match="mps"):
        own_device("mps")


@pytest.mark.usefixtures("two_gpus")
def test_devices_are_counted_by_kind() -> None:
    assert [count_devices(n, "cuda") for n in ("1", "2", "all")] == [1, 2, 2]
    assert [count_devices(n, "cpu") for n in ("1", "all")] == [1, 1]
    with pytest.raises(DeviceError, match="`devices` is 4 but this machine has 2 CUDA devices"):
        count_devices("4", "auto")


@pytest.mark.usefixtures("two_gpus")
def test_devices_must_be_as_many_as_a_launcher_started(monkeypatch: pytest.MonkeyPatch) -> None:
    launched(monkeypatch, 0, here=2)
    assert launch("2", "cuda", []) is None
    with pytest.raises(DeviceError, match="`devices` is 1 but 2 processes"):
        launch("1", "cuda", [])
