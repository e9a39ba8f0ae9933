from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from ebsc_core.config.schema import JointChoice, TrainOptions
from ebsc_core.data.features.whitening import Whitening
from ebsc_core.data.images.in_memory import ImageSet
from ebsc_core.data.views.options import GRAY_VIEWS
from ebsc_core.data.views.parameters import draw_parameters
from ebsc_core.plugins.interfaces import Backbone, Expression, Objective
from ebsc_core.training.step import JointStep, Losses
from ebsc_core.training.trainer import Trainer
from ebsc_core.utils.errors import TrainingError
from ebsc_core.utils.progress import Progress
from ebsc_plugins.coefficients.energy import EnergyNetwork, EnergyOptions
from ebsc_plugins.objectives.byol import BYOL
from ebsc_plugins.objectives.simclr import SimCLR


class Tiny(Backbone):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(36, width), nn.BatchNorm1d(width), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def tiny_images() -> Tensor:
    """Four random patterns with a little noise, 16 images of each."""
    generator = torch.Generator().manual_seed(5)
    patterns = torch.rand(4, 1, 1, 6, 6, generator=generator)
    noise = 0.2 * torch.rand(4, 16, 1, 6, 6, generator=generator)
    return ((0.8 * patterns + noise) * 255).flatten(0, 1).to(torch.uint8)


# The clusters of these images, and as neighbors of each those of its pattern that follow it.
PATTERNS = (
    torch.arange(64) // 16,
    16 * (torch.arange(64) // 16)[:, None] + (torch.arange(64)[:, None] + torch.arange(1, 5)) % 16,
)


def image_set(images: Tensor) -> ImageSet:
    return ImageSet("tiny", images, [str(i) for i in range(len(images))])


def objective_of(kind: type[Objective], width: int = 16) -> Objective:
    torch.manual_seed(0)
    return kind(kind.Options(hidden=width, width=width // 2), Tiny(width))


def trainer(
    objective: Objective | None = None,
    joint: bool = True,
    seed: int = 0,
    express: str = "embeddings",
    epochs: int = 4,
    lr: float | None = 3e-3,
    images: Tensor | None = None,
    weight: float = 0.5,
    whiten: bool = True,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    **choice: Any,
) -> Trainer:
    objective = objective or objective_of(SimCLR)
    width = objective.width if express == "embeddings" else objective.backbone.width
    torch.manual_seed(1)
    step = JointStep(
        objective=objective,
        model=EnergyNetwork(EnergyOptions(hidden=8), width) if joint else None,
        device=torch.device("cpu"),
        views=GRAY_VIEWS,
        joint=JointChoice(**{"form": "reconstruction", "start": 0.5, "weight": weight} | choice),
        whiten=whiten,
        express=express,
    )
    return Trainer(
        step=step,
        images=image_set(tiny_images() if images is None else images),
        options=TrainOptions(epochs=epochs, lr=lr, optimizer=optimizer),
        batch_size=32,
        n_clusters=4,
        seed=seed,
        progress=Progress(),
    )


def losses(step: JointStep, images: Tensor, seed: int = 5) -> Losses:
    """Of a step of the joint phase."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (draw_parameters(images.shape, step.views, generator) for _ in range(2))
    return step(images, (a, b), joint=True)


def weights(module: nn.Module | None) -> Tensor:
    assert module is not None
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def trained(**arguments: Any) -> Trainer:
    made = trainer(**arguments)
    made.fit()
    return made


@pytest.mark.parametrize(("optimizer", "lr"), [("adamw", 3e-3), ("sgd", None)])
def test_the_loss_falls(optimizer: Literal["adamw", "sgd"], lr: float | None) -> None:
    made = trained(epochs=15, joint=False, optimizer=optimizer, lr=lr)
    assert type(made.optimizer).__name__.lower() == optimizer
    assert made.history[-1].loss < made.history[0].loss - 0.2


def test_the_history_tells_the_stages_their_error_and_the_effective_rank() -> None:
    history = trained().history
    assert [epoch.stage for epoch in history] == ["warm-up", "warm-up", "joint", "joint"]
    assert [epoch.joint_error is None for epoch in history] == [True, True, False, False]
    assert all(1 <= epoch.effective_rank <= 8 for epoch in history)


@pytest.mark.parametrize(
    ("start", "stages"), [(0.0, {"joint"}), (0.25, {"warm-up", "joint"}), (1.0, {"warm-up"})]
)
def test_start_says_when_the_joint_phase_begins(start: float, stages: set[str]) -> None:
    assert {epoch.stage for epoch in trained(start=start, epochs=4).history} == stages


@pytest.mark.parametrize("express", ["features", "embeddings"])
def test_either_rows_can_be_expressed(express: str) -> None:
    last = trained(express=express).history[-1]
    assert last.joint_error is not None
    assert 0 < last.joint_error < 2


def test_the_joint_term_moves_the_backbone_by_its_weight() -> None:
    alone = weights(trained(joint=False).step.objective)
    stopped = weights(trained(weight=0.0).step.objective)
    pulled = weights(trained(weight=0.5).step.objective)
    torch.testing.assert_close(stopped, alone)
    assert not torch.allclose(pulled, alone, atol=1e-4)


@pytest.mark.parametrize(("renew", "expected"), [(1, 4), (2, 2), (3, 2), (9, 1), (None, 4)])
def test_clusters_that_are_pushed_apart_are_renewed(renew: int | None, expected: int) -> None:
    made = trainer(joint=False, form="neighbors", start=0.0, epochs=4, renew=renew)
    made.step.n_clusters = 4
    calls: list[bool] = []

    def partition() -> tuple[Tensor, Tensor, float]:
        calls.append(made.step.objective.training)
        return *PATTERNS, 0.5

    said: list[str] = []
    made.progress.note = said.append  # type: ignore[method-assign]
    made.partition = partition
    made.fit()
    assert len(calls) == expected
    assert said == ["up to 50% of the second views are of neighbors"] * expected
    assert made.step.objective.training


def test_clusters_that_are_pushed_apart_part() -> None:
    """Prototypes of the true patterns end farther from one another than without the term."""

    def likeness(weight: float) -> float:
        made = trainer(joint=False, form="neighbors", start=0.0, epochs=15, weight=weight)
        made.step.n_clusters, made.partition = 4, lambda: (*PATTERNS, 0.5)
        made.fit()
        objective = made.step.objective.eval()
        with torch.no_grad():
            rows = objective.embed(objective.backbone(tiny_images().float() / 255))
        prototypes = nn.functional.normalize(rows.unflatten(0, (4, 16)).mean(dim=1), dim=1)
        return float((prototypes @ prototypes.T).fill_diagonal_(0).sum() / 12)

    assert likeness(5.0) < likeness(0.0) - 0.05


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_second_views_are_of_neighbors_by_their_share(share: float) -> None:
    made = trainer(joint=False, form="neighbors", start=0.5, epochs=40, weight=0.0)
    made.step.n_clusters, made.partition = 4, lambda: (*PATTERNS, share)
    real, of_others, patterns = type(made.step).__call__, [], []

    class Watching(JointStep):
        def __call__(self, images: Tensor, parameters: Any, joint: bool, *rest: Any) -> Losses:
            others = rest[1]
            assert (others is not None) == joint
            if joint:
                numbers = [(shown[:, None] == tiny_images()).all(dim=(2, 3, 4)) for shown in (images, others)]
                first, second = (number.float().argmax(dim=1) for number in numbers)
                of_others.append((first != second).float().mean())
                patterns.append(first // 16 == second // 16)
            return real(self, images, parameters, joint, *rest)

    made.step.__class__ = Watching
    made.fit()
    assert torch.stack(of_others).mean().item() == pytest.approx(share, abs=0.05)
    assert torch.cat(patterns).all()
    assert all(epoch.joint_error is None for epoch in made.history)


def test_neighbors_bring_their_images_together() -> None:
    """Patterns 0 and 1 come nearer if their images are said to be neighbors."""
    clusters, neighbors = PATTERNS
    pairs = (clusters, neighbors ^ 16)  # patterns 0 and 1, and 2 and 3, change places

    def likeness(share: float) -> float:
        made = trainer(joint=False, form="neighbors", start=0.0, epochs=15, weight=0.0)
        made.step.n_clusters, made.partition = 4, lambda: (*pairs, share)
        made.fit()
        objective = made.step.objective.eval()
        with torch.no_grad():
            rows = objective.embed(objective.backbone(tiny_images().float() / 255))
        return float((rows[:16] @ rows[16:32].T).mean())

    assert likeness(0.8) > likeness(0.0) + 0.1


def test_the_coefficient_model_learns_in_the_joint_phase_alone() -> None:
    class Watch(Progress):
        def start(self, stage: str, total: int, unit: str) -> None:
            at_start[stage] = weights(made.step.model)

    at_start: dict[str, Tensor] = {}
    made = trainer(weight=0.0)
    made = replace(made, progress=Watch(), history=[])
    untrained = weights(made.step.model)
    made.fit()
    assert list(at_start) == ["warm-up training", "joint training"]
    assert torch.equal(at_start["joint training"], untrained)
    assert not torch.equal(weights(made.step.model), untrained)


@pytest.mark.parametrize("kind", [SimCLR, BYOL])
def test_the_seed_decides(kind: type[Objective]) -> None:
    def run(seed: int) -> Tensor:
        done = trained(objective=objective_of(kind), seed=seed)
        return torch.cat([weights(done.step.objective), weights(done.step.model)])

    first = run(0)
    assert torch.equal(first, run(0))
    assert not torch.equal(first, run(1))


def test_the_objective_is_told_how_many_steps_come_and_of_each() -> None:
    class Counting(SimCLR):
        def before_training(self, total_steps: int) -> None:
            told.append(total_steps)

        def after_step(self) -> None:
            told.append(1)

    told: list[int] = []
    trained(objective=objective_of(Counting), epochs=3)
    assert told == [6] + 6 * [1]


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    class Broken(SimCLR):
        def loss(self, a: Tensor, b: Tensor) -> Tensor:
            return super().loss(a, b) * float("nan")

    with pytest.raises(TrainingError, match="diverged"):
        trained(objective=objective_of(Broken))


@pytest.mark.parametrize("whiten", [True, False])
def test_rows_that_are_not_finite_are_an_error(whiten: bool) -> None:
    with pytest.raises(TrainingError, match="diverged"):
        trained(start=0.0, lr=1e30, whiten=whiten)


@pytest.mark.parametrize(("weight", "collapses"), [(0.5, False), (1e3, True)])
def test_an_absurd_joint_weight_is_called_a_collapse_once(weight: float, collapses: bool) -> None:
    noise = torch.randint(0, 256, (64, 1, 6, 6), dtype=torch.uint8)
    objective = objective_of(SimCLR, width=64)
    made = trained(objective=objective, weight=weight, start=0.25, epochs=40, lr=1e-2, images=noise)
    assert made.collapsed == collapses
    assert len(made.progress.warnings) == collapses
    for warning in made.progress.warnings:
        assert "collaps" in warning
        assert "lower joint.weight" in warning


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_weight_is_a_share_of_the_objective_s_gradient(scale: float) -> None:
    """Whatever the scale of the loss, the pull's gradient is as long as asked for."""

    class Scaled(SimCLR):
        def loss(self, a: Tensor, b: Tensor) -> Tensor:
            return super().loss(a, b) * scale

    made = trainer(objective=objective_of(Scaled), weight=0.3)
    last = [p for p in made.step.objective.backbone.parameters() if p.ndim > 1][-1]

    def gradient(weight: float) -> Tensor:
        chosen = replace(made.step, joint=made.step.joint.model_copy(update={"weight": weight}))
        return torch.autograd.grad(losses(chosen, tiny_images()[:32]).total, last)[0]

    alone = gradient(0.0)
    assert float((gradient(0.3) - alone).norm() / alone.norm()) == pytest.approx(0.3, rel=1e-3)


def test_the_pull_teaches_the_coefficient_model_nothing() -> None:
    def gradients(weight: float) -> list[Tensor]:
        made = trainer(weight=weight)
        assert made.step.model is not None
        learned = list(made.step.model.parameters())
        return list(
            torch.autograd.grad(losses(made.step, tiny_images()[:32]).total, learned, allow_unused=True)
        )

    stopped, pulled = gradients(0.0), gradients(10.0)
    assert any(float(gradient.abs().max()) > 0 for gradient in stopped)
    for one, other in zip(stopped, pulled, strict=True):
        torch.testing.assert_close(one, other)


def test_rows_are_whitened_by_the_dictionary_of_the_batch() -> None:
    class Watched(EnergyNetwork):
        def express(self, queries: Tensor, dictionary: Tensor, own: Tensor) -> Expression:
            shown.append((queries.detach(), dictionary.detach()))
            return super().express(queries, dictionary, own)

    def rows_shown(whiten: bool) -> tuple[Tensor, Tensor]:
        shown.clear()
        step = replace(trainer(whiten=whiten).step, model=Watched(EnergyOptions(hidden=8), 8))
        plain.append(losses(step, tiny_images()[:32]).rows)
        assert torch.equal(shown[0][0], shown[1][0])  # with gradients and without
        return shown[0]

    shown: list[tuple[Tensor, Tensor]] = []
    plain: list[Tensor] = []
    rows, dictionary = rows_shown(whiten=False)
    whitened_rows, whitened_dictionary = rows_shown(whiten=True)
    assert torch.equal(rows, plain[0])
    assert torch.equal(rows, plain[1])  # what the effective rank is taken of
    whitening = Whitening(dictionary)
    torch.testing.assert_close(whitened_rows, whitening(rows))
    torch.testing.assert_close(whitened_dictionary, whitening(dictionary))


def test_progress_counts_the_images_of_every_stage() -> None:
    heard: list[tuple[str, int]] = []

    class Heard(Progress):
        def start(self, stage: str, total: int, unit: str) -> None:
            heard.append((stage, total))

        def advance(self, done: int, figures: object = None) -> None:
            heard.append(("done", done))

    replace(trainer(epochs=2), progress=Heard(), history=[]).fit()
    assert heard == [
        ("warm-up training", 64),
        ("done", 64),
        ("joint training", 64),
        ("done", 64),
    ]
    heard.clear()
    replace(trainer(epochs=2, joint=False, form="none", start=None), progress=Heard(), history=[]).fit()
    assert heard == [("training", 128), ("done", 64), ("done", 128)]


@pytest.mark.parametrize(
    ("joint", "weight", "expected"),
    [(True, 0.5, [True, False]), (True, 0.0, [True, True]), (False, 0.5, [True])],
)
def test_a_compiled_backbone_serves_until_losses_are_balanced(
    joint: bool, weight: float, expected: list[bool]
) -> None:
    class Watch(Progress):
        def start(self, stage: str, total: int, unit: str) -> None:
            compiled.append(backbone._compiled_call_impl is not None)

    compiled: list[bool] = []
    made = replace(trainer(joint=joint, weight=weight), progress=Watch(), history=[])
    backbone = made.step.objective.backbone
    backbone.compile(backend="eager")
    assert made.compilable_steps == made.steps * (2 * sum(expected) if joint else 4)
    made.fit()
    assert compiled == expected
    assert backbone._compiled_call_impl is None
