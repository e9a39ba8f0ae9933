"""What is tried before a training: it changes nothing, and decides by what it measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ebsc_core.config.schema import JointChoice
from ebsc_core.data.views.options import GRAY_VIEWS
from ebsc_core.data.views.parameters import draw_parameters
from ebsc_core.plugins.interfaces import Backbone, Objective, Views
from ebsc_core.training.precision import (
    COMPILE_FROM_S,
    CPU_TRIAL,
    Trial,
    backbones,
    choose_arithmetic,
    choose_compiling,
    choose_precision,
    run_eagerly,
)
from ebsc_core.training.step import JointStep
from ebsc_core.utils import device as device_module
from ebsc_core.utils.errors import DeviceError
from ebsc_plugins.objectives.byol import BYOL
from ebsc_plugins.objectives.simclr import SimCLR

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Tiny(Backbone):
    width = 16

    def __init__(self, pixels: int = 36) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(pixels, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def objective_of(kind: type[Objective] = SimCLR) -> Objective:
    torch.manual_seed(0)
    return kind(kind.Options(hidden=16, width=8), Tiny())


def images(n: int = 20) -> Tensor:
    return torch.randint(0, 256, (n, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("kind", [SimCLR, BYOL])
def test_a_trial_changes_nothing(kind: type[Objective], bf16: bool) -> None:
    objective = objective_of(kind)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    state = torch.get_rng_state()
    Trial(objective, images(), CPU)(bf16)
    for name, value in objective.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in objective.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_trial_that_fails_changes_nothing_either() -> None:
    class Fails(SimCLR):
        def loss(self, a: Tensor, b: Tensor) -> Tensor:
            raise RuntimeError("no")

    objective = objective_of(Fails)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    with pytest.raises(RuntimeError, match="no"):
        Trial(objective, images(), CPU)(False)
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())


@pytest.mark.parametrize(("compiling", "expected"), [("auto", 2 * CPU_TRIAL), (True, 100)])
def test_a_few_images_are_enough_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, compiling: Any, expected: int
) -> None:
    class Watched(SimCLR):
        def forward(self, view_a: Tensor, view_b: Tensor) -> Views:
            seen.append(len(view_a) + len(view_b))
            return super().forward(view_a, view_b)

    seen: list[int] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: None)
    monkeypatch.setattr(device_module, "cpu_has_bf16", lambda: True)
    large = torch.zeros(50, 1, 16, 16, dtype=torch.uint8)
    objective = Watched(SimCLR.Options(hidden=16, width=8), Tiny(256))
    choose_arithmetic(objective, large, CPU, 10, "auto", compiling)
    assert set(seen) == {expected}


# -- compiling -------------------------------------------------------------------------------------


class Network(nn.Module):
    """Takes so many seconds, compiled or not, by a clock of the test's."""

    def __init__(self, eager: float, compiled: float, compiling: float) -> None:
        super().__init__()
        self.now, self.eager, self.compiled, self.compiling = 0.0, eager, compiled, compiling
        self.calls, self._compiled_call_impl = 0, None

    def compile(self, *args: Any, **kwargs: Any) -> None:
        self._compiled_call_impl = self.forward

    def run(self) -> None:
        self.calls += 1
        self.now += self.compiled if self._compiled_call_impl else self.eager
        if self._compiled_call_impl:  # the first call is the one that waits for the compiler
            self.now, self.compiling = self.now + self.compiling, 0.0


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Network]:
    def make(eager: float, compiled: float, compiling: float = 30.0) -> Network:
        network = Network(eager, compiled, compiling)
        monkeypatch.setattr(time, "perf_counter", lambda: network.now)
        return network

    return make


def test_auto_never_compiles_on_a_cpu(made: Callable[..., Network]) -> None:
    network = made(1.0, 0.1)
    assert not choose_compiling("auto", CPU, [network], network.run, 10**6)[0]
    assert network.calls == 0


def test_auto_compiles_where_it_is_measured_to_pay_back(made: Callable[..., Network]) -> None:
    network = made(1.0, 0.5)
    chosen, why = choose_compiling("auto", CUDA, [network], network.run, 1000)
    assert chosen
    assert network._compiled_call_impl
    assert "2.00x" in why


@pytest.mark.parametrize("compiled", [0.99, 1.0, 2.0])
def test_auto_undoes_what_gains_nothing(made: Callable[..., Network], compiled: float) -> None:
    network = made(1.0, compiled)
    chosen, why = choose_compiling("auto", CUDA, [network], network.run, 1000)
    assert not chosen
    assert not network._compiled_call_impl
    assert "measured" in why


def test_auto_does_not_try_in_a_short_training(made: Callable[..., Network]) -> None:
    network = made(1.0, 0.1)
    chosen, why = choose_compiling("auto", CUDA, [network], network.run, int(COMPILE_FROM_S) - 1)
    assert not chosen
    assert not network._compiled_call_impl
    assert "299 s" in why


@pytest.mark.parametrize("requested", ["auto", True])
def test_what_cannot_be_compiled_runs_as_it_is(made: Callable[..., Network], requested: Any) -> None:
    network = made(1.0, 0.1)

    def trial() -> None:
        network.run()
        if network._compiled_call_impl:
            raise RuntimeError("no compiler found\nand where it was looked for")

    chosen, why = choose_compiling(requested, CUDA, [network], trial, 10**6)
    assert not chosen
    assert not network._compiled_call_impl
    assert why == "no, it failed: no compiler found"


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_a_request_is_obeyed_unmeasured(made: Callable[..., Network], device: torch.device) -> None:
    network = made(0.1, 1.0)
    assert choose_compiling(True, device, [network], network.run, 1) == (True, "yes, as asked (31 s)")
    network = made(1.0, 0.1)
    assert choose_compiling(False, device, [network], network.run, 10**6) == (False, "no, as asked")
    assert network.calls == 0


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is compiled, by the real tracer without the compiler behind it."""
    compile_module, graphs = nn.Module.compile, []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(
        nn.Module, "compile", lambda self, **options: compile_module(self, backend=backend, **options)
    )
    return graphs


def test_a_step_runs_what_was_compiled_for_the_trial(traced: list[Any]) -> None:
    objective = objective_of(BYOL)
    names = list(objective.state_dict())
    assert choose_arithmetic(objective, images(), CPU, 10, "fp32", True).compiled
    assert len(traced) == 2  # the network and its teacher
    step = JointStep(objective, None, CPU, GRAY_VIEWS, JointChoice(), False, "features")
    drawn = draw_parameters(images().shape, GRAY_VIEWS, torch.Generator())
    step(images(), (drawn, drawn), joint=False).total.backward()
    assert len(traced) == 2
    assert list(objective.state_dict()) == names


def test_what_ran_compiled_runs_eagerly_again(traced: list[Any]) -> None:
    objective = objective_of()
    assert choose_arithmetic(objective, images(), CPU, 10, "fp32", True).compiled
    view = images().float()
    compiled = objective.eval().backbone(view)
    run_eagerly(backbones(objective))
    traced.clear()
    assert torch.equal(objective.backbone(view), compiled)
    objective.backbone(view[:3])
    assert not traced


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
