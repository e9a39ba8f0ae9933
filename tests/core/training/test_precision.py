"""Precision and compilation follow from hardware and length of a training, and a trial changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ebsc_core.config.schema import JointChoice
from ebsc_core.data.views.options import GRAY_VIEWS
from ebsc_core.data.views.parameters import draw_parameters
from ebsc_core.plugins.interfaces import Backbone, Objective
from ebsc_core.training.precision import (
    COMPILE_MIN_STEPS,
    Trial,
    backbones,
    choose_arithmetic,
    choose_compiling,
    choose_precision,
    extracts_in_bf16,
    run_eagerly,
    try_compiled,
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
    Trial(objective, images().shape, CPU)(bf16)
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
        Trial(objective, images().shape, CPU)(False)
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())


# -- compiling -------------------------------------------------------------------------------------


class Network(nn.Module):
    """Counts its runs, compiled or not."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self._compiled_call_impl = 0, None

    def compile(self, *args: Any, **kwargs: Any) -> None:
        self._compiled_call_impl = self.forward

    def run(self) -> None:
        self.calls += 1


@pytest.mark.parametrize(
    ("requested", "device", "steps", "expected"),
    [
        ("auto", CPU, 10**6, False),
        ("auto", CUDA, COMPILE_MIN_STEPS - 1, False),
        ("auto", CUDA, COMPILE_MIN_STEPS, True),
        ("auto", CUDA, 0, False),
        (True, CPU, 1, True),
        (True, CUDA, 1, True),
        (True, CUDA, 0, False),
        (False, CUDA, 10**6, False),
    ],
)
def test_compilation_follows_from_device_and_steps(
    requested: Any, device: torch.device, steps: int, expected: bool
) -> None:
    chosen, why = choose_compiling(requested, device, steps)
    assert chosen == expected
    assert why.startswith("yes" if expected else "no")


def test_a_long_training_says_how_many_steps_it_has() -> None:
    assert choose_compiling("auto", CUDA, 12_345)[1] == "yes, 12345 steps pay for it"
    assert "99 steps" in choose_compiling("auto", CUDA, 99)[1]


def test_networks_that_compile_stay_compiled() -> None:
    network = Network()
    worked, took = try_compiled([network], network.run)
    assert worked
    assert took.endswith(" s")
    assert network.calls == 1
    assert network._compiled_call_impl


def test_networks_that_do_not_compile_run_as_they_are() -> None:
    network = Network()

    def attempt() -> None:
        raise RuntimeError("no compiler found\nand where it was looked for")

    assert try_compiled([network], attempt) == (False, "no compiler found")
    assert not network._compiled_call_impl


def test_a_failed_compilation_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: nn.Module, **_: Any) -> None:
        self._compiled_call_impl = failing

    def failing(*_: Any) -> None:
        raise RuntimeError("no compiler found")

    monkeypatch.setattr(nn.Module, "compile", fails)
    chosen = choose_arithmetic(objective_of(), images().shape, CPU, 10, "fp32", True)
    assert not chosen.compiled
    assert chosen.reasons["compile"] == "no, it failed: no compiler found"


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
    assert choose_arithmetic(objective, images().shape, CPU, 10, "fp32", True).compiled
    assert len(traced) == 2  # the network and its teacher
    step = JointStep(objective, None, CPU, GRAY_VIEWS, JointChoice(), False, "features")
    drawn = draw_parameters(images().shape, GRAY_VIEWS, torch.Generator())
    step(images(), (drawn, drawn), joint=False).total.backward()
    assert len(traced) == 2
    assert list(objective.state_dict()) == names


def test_what_ran_compiled_runs_eagerly_again(traced: list[Any]) -> None:
    objective = objective_of()
    assert choose_arithmetic(objective, images().shape, CPU, 10, "fp32", True).compiled
    view = images().float()
    compiled = objective.eval().backbone(view)
    run_eagerly(backbones(objective))
    traced.clear()
    assert torch.equal(objective.backbone(view), compiled)
    objective.backbone(view[:3])
    assert not traced


# -- precision -------------------------------------------------------------------------------------


@pytest.mark.parametrize("requested", ["fp32", "bf16"])
def test_a_requested_precision_is_obeyed(requested: Any) -> None:
    chosen, why = choose_precision(requested, CPU, 224)
    assert chosen == (requested == "bf16")
    assert requested in why


def test_bf16_on_metal_is_refused() -> None:
    with pytest.raises(DeviceError, match="mps"):
        choose_precision("bf16", torch.device("mps"), 32)


@pytest.mark.parametrize(
    ("native", "side", "expected"), [(True, 16, True), (True, 15, False), (False, 224, False)]
)
def test_a_cpu_takes_bf16_by_its_instructions_and_the_size_of_images(
    monkeypatch: pytest.MonkeyPatch, native: bool, side: int, expected: bool
) -> None:
    monkeypatch.setattr(device_module, "cpu_has_bf16", lambda: native)
    chosen, why = choose_precision("auto", CPU, side)
    assert chosen == expected
    assert why.startswith("bf16" if expected else "fp32")


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_takes_bf16_if_it_is_native(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation
    )
    assert choose_precision("auto", CUDA, 8)[0] == native


@pytest.mark.parametrize(
    ("requested", "kind", "pretrained", "trains", "expected"),
    [
        ("auto", "cuda", True, False, True),
        ("auto", "cuda", True, True, True),
        ("auto", "cuda", False, True, False),
        ("auto", "cpu", True, False, False),
        ("auto", "cpu", True, True, False),
        ("bf16", "cpu", True, False, True),
        ("bf16", "cpu", True, True, False),  # as with auto, which a run records as bf16 after training
        ("bf16", "cpu", False, True, False),
        ("bf16", "mps", True, False, False),
        ("fp32", "cuda", True, False, False),
    ],
)
def test_features_of_trained_weights_alone_are_extracted_in_bf16(
    monkeypatch: pytest.MonkeyPatch, requested: Any, kind: str, pretrained: bool, trains: bool, expected: bool
) -> None:
    monkeypatch.setattr("ebsc_core.training.precision.has_bf16", lambda device: True)
    backbone = nn.Identity()
    backbone.pretrained = pretrained  # type: ignore[assignment]
    assert extracts_in_bf16(requested, torch.device(kind), backbone, trains) is expected  # type: ignore[arg-type]
