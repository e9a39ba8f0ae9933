from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch

from ebsc_core.utils import device as device_module
from ebsc_core.utils.device import choose_precision, own_device, resolve_device
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
    with pytest.raises(DeviceError, match=r"--device cuda:1: .* use cuda"):
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
    with pytest.raises(DeviceError, match="--devices is 4 but this machine has 2 CUDA devices"):
        count_devices("4", "auto")


@pytest.mark.usefixtures("two_gpus")
def test_devices_must_be_as_many_as_a_launcher_started(monkeypatch: pytest.MonkeyPatch) -> None:
    launched(monkeypatch, 0, here=2)
    assert launch("2", "cuda", []) is None
    with pytest.raises(DeviceError, match="--devices is 1 but 2 processes"):
        launch("1", "cuda", [])


class Clock:
    """Time passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def step(self, fp32: float, bf16: float) -> Callable[[bool], None]:
        """A training step that takes so many seconds."""

        def run(use_bf16: bool) -> None:
            self.now += bf16 if use_bf16 else fp32

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    return clock


def unwanted(bf16: bool) -> None:
    raise AssertionError("no trial was needed")


@pytest.mark.parametrize("requested", ["fp32", "bf16"])
def test_a_requested_precision_is_obeyed_untried(requested: str) -> None:
    chosen, why = choose_precision(requested, CPU, 224, unwanted)
    assert chosen == (requested == "bf16")
    assert requested in why


def test_bf16_on_metal_is_refused() -> None:
    with pytest.raises(DeviceError, match="mps"):
        choose_precision("bf16", torch.device("mps"), 32, unwanted)


def test_auto_without_bf16_instructions_is_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "cpu_has_bf16", lambda: False)
    assert not choose_precision("auto", CPU, 224, unwanted)[0]


def test_auto_with_tiny_images_is_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "cpu_has_bf16", lambda: True)
    assert not choose_precision("auto", CPU, 8, unwanted)[0]


@pytest.mark.parametrize(
    ("fp32", "bf16", "expected"),
    [(1.0, 5.0, False), (1.0, 1.0, False), (1.1, 1.0, False), (5.0, 1.0, True)],
    ids=["slower", "tie", "near tie", "faster"],
)
def test_auto_takes_bf16_only_where_it_is_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, fp32: float, bf16: float, expected: bool
) -> None:
    monkeypatch.setattr(device_module, "cpu_has_bf16", lambda: True)
    chosen, why = choose_precision("auto", CPU, 32, clock.step(fp32, bf16))
    assert chosen == expected
    assert "measured" in why


def test_a_slow_first_step_does_not_decide(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr(device_module, "cpu_has_bf16", lambda: True)
    seen: set[bool] = set()

    def step(bf16: bool) -> None:
        clock.now += 1.0 if bf16 else 2.0
        clock.now += 1000.0 if bf16 and bf16 not in seen else 0.0
        seen.add(bf16)

    assert choose_precision("auto", CPU, 32, step)[0]


@pytest.mark.parametrize("busy", [(1, 5, 5, 1, 5, 5), (9, 9, 9, 9, 1, 1), (1, 1, 1, 30, 1, 30)])
def test_a_machine_that_is_busy_now_and_then_does_not_decide(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, busy: tuple[int, ...]
) -> None:
    monkeypatch.setattr(device_module, "cpu_has_bf16", lambda: True)
    times = iter((1, 1, *busy))

    def step(bf16: bool) -> None:
        clock.now += next(times) * (1.0 if bf16 else 1.8)

    assert choose_precision("auto", CPU, 32, step)[1] == "bf16, bf16 measured at 1.8x the speed of fp32"


@pytest.mark.parametrize(
    ("supported", "fp32", "expected"), [(True, 2, True), (True, 1, False), (False, 2, False)]
)
def test_auto_on_cuda_is_measured_where_bf16_is_native(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, supported: bool, fp32: float, expected: bool
) -> None:
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: supported or including_emulation
    )
    step = clock.step(fp32, 1.0) if supported else unwanted
    chosen, why = choose_precision("auto", torch.device("cuda"), 8, step)
    assert chosen == expected
    assert ("measured" in why) == supported
