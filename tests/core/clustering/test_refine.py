from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ebsc_core.clustering.refine import draws, refine
from ebsc_core.config.loading import load_config
from ebsc_core.config.schema import RefineOptions
from ebsc_core.plugins.interfaces import Expression
from ebsc_core.utils.errors import ConfigError, TrainingError
from ebsc_core.utils.progress import Progress
from ebsc_plugins.coefficients.energy import EnergyNetwork, EnergyOptions


class Losses(Progress):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []
        self.done = 0

    def advance(self, done: int, figures: Mapping[str, float] | None = None) -> None:
        self.done = done
        if figures:
            self.seen.append(figures["loss"])


@pytest.fixture(scope="module")
def rows() -> Tensor:
    """Four random planes in ten dimensions, 40 unit rows of each."""
    generator = torch.Generator().manual_seed(1)
    planes = torch.linalg.qr(torch.randn(4, 10, 2, generator=generator)).Q
    points = torch.randn(4, 40, 2, generator=generator) @ planes.transpose(1, 2)
    return F.normalize(points.flatten(0, 1), dim=1)


def network() -> EnergyNetwork:
    torch.manual_seed(0)
    return EnergyNetwork(EnergyOptions(hidden=32), 10)


def weights(model: EnergyNetwork) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@torch.no_grad()
def loss(model: EnergyNetwork, rows: Tensor) -> float:
    return model.loss(rows, model.express(rows, rows, torch.arange(len(rows)))).item()


def test_the_loss_falls_on_subspaces(rows: Tensor) -> None:
    model, progress = network(), Losses()
    before = loss(model, rows)
    refine(model, rows, RefineOptions(steps=100, rows=128, lr=3e-3), 0, progress)
    assert loss(model, rows) < 0.7 * before
    assert progress.seen[-1] < progress.seen[0]
    assert progress.done == 100


def test_the_seed_decides(rows: Tensor) -> None:
    trained = []
    for seed in (0, 0, 1):
        model = network()
        refine(model, rows, RefineOptions(steps=5, rows=32), seed, Progress())
        trained.append(weights(model))
    assert torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[0], trained[2])


def test_no_steps_change_nothing(rows: Tensor) -> None:
    model = network()
    refine(model, rows, RefineOptions(steps=0), 0, Progress())
    assert torch.equal(weights(model), weights(network()))


def test_fewer_rows_than_a_step_draws_are_enough(rows: Tensor) -> None:
    model = network()
    refine(model, rows[:6], RefineOptions(steps=3, rows=1024), 0, Progress())
    assert bool(torch.isfinite(weights(model)).all())
    assert not torch.equal(weights(model), weights(network()))


def test_the_rows_are_left_as_they_were(rows: Tensor) -> None:
    before = rows.clone()
    refine(network(), rows, RefineOptions(steps=2, rows=32), 0, Progress())
    assert torch.equal(rows, before)


def test_divergence_is_an_error_that_names_the_cure(rows: Tensor) -> None:
    with pytest.raises(TrainingError, match=r"refine\.lr"):
        refine(network(), rows, RefineOptions(steps=5, rows=32, lr=1e30), 0, Progress())


class Seen(EnergyNetwork):
    """Remembers what it was asked to express."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(EnergyOptions(hidden=32), 10)
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def express(self, queries: Tensor, dictionary: Tensor, own: Tensor) -> Expression:
        self.seen.append((queries.clone(), dictionary.clone(), own.clone()))
        return super().express(queries, dictionary, own)


@pytest.mark.parametrize(
    ("drawn", "queries", "expected"),
    [(32, None, (32, 32)), (32, 8, (8, 32)), (32, 99, (32, 32)), (999, 8, (8, 160))],
)
def test_so_many_rows_are_expressed_by_those_that_were_drawn(
    rows: Tensor, drawn: int, queries: int | None, expected: tuple[int, int]
) -> None:
    model = Seen()
    refine(model, rows, RefineOptions(steps=3, rows=drawn, queries=queries), 0, Progress())
    assert len(model.seen) == 3
    for asked, dictionary, own in model.seen:
        assert (len(asked), len(dictionary)) == expected
        assert torch.equal(asked, dictionary[own])  # each query's own entry is the one it may not use
    drawn_first = [tuple(dictionary[0].tolist()) for _, dictionary, _ in model.seen]
    assert len(set(drawn_first)) > 1


def test_fewer_queries_draw_the_same_dictionaries(rows: Tensor) -> None:
    few, many = Seen(), Seen()
    refine(few, rows, RefineOptions(steps=3, rows=32, queries=4), 0, Progress())
    refine(many, rows, RefineOptions(steps=3, rows=32), 0, Progress())
    for (_, one, _), (_, other, _) in zip(few.seen, many.seen, strict=True):
        assert torch.equal(one, other)


class Steep(EnergyNetwork):
    """Its loss is a thousand times too large."""

    def loss(self, queries: Tensor, expression: Expression) -> Tensor:
        return 1000 * super().loss(queries, expression)


@pytest.mark.parametrize(("clip", "most"), [(0.5, 0.5), (None, torch.inf)])
def test_gradients_are_shortened_to_clip(
    rows: Tensor, monkeypatch: pytest.MonkeyPatch, clip: float | None, most: float
) -> None:
    norms = []
    step = torch.optim.AdamW.step

    def measured(self: torch.optim.AdamW, *arguments: object) -> object:
        parameters = [p for group in self.param_groups for p in group["params"]]
        norms.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).norm().item())
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", measured)
    torch.manual_seed(0)
    refine(
        Steep(EnergyOptions(hidden=32), 10), rows, RefineOptions(steps=4, rows=32, clip=clip), 0, Progress()
    )
    assert len(norms) == 4
    assert max(norms) <= most * 1.001
    assert (max(norms) > 5) is (clip is None)


def test_a_clip_that_is_never_reached_changes_nothing(rows: Tensor) -> None:
    trained = []
    for clip in (None, 1e9):
        model = network()
        refine(model, rows, RefineOptions(steps=5, rows=32, clip=clip), 0, Progress())
        trained.append(weights(model))
    assert torch.equal(*trained)


@pytest.mark.parametrize(
    "option", ["clip=0", "clip=-1", "clip=nan", "queries=0", "queries=1.5", "rows=1", "steps=-1"]
)
def test_options_that_are_none(option: str) -> None:
    with pytest.raises(ConfigError, match=rf"refine\.{option.partition('=')[0]}"):
        load_config(settings=[f"refine.{option}"])


@pytest.mark.parametrize("n", [500, 1 << 20])
def test_draws_are_of_distinct_rows_and_decided_by_the_seed(n: int) -> None:
    first, second = (draw for draw, _ in zip(draws(n, 400, seed=3), range(2), strict=False))
    for draw in (first, second):
        assert len(draw.unique()) == len(draw) == 400
        assert 0 <= int(draw.min()) < n // 4
        assert 3 * n // 4 < int(draw.max()) < n
    assert not torch.equal(first, second)
    assert torch.equal(next(draws(n, 400, seed=3)), first)
    assert not torch.equal(next(draws(n, 400, seed=4)), first)


def test_what_millions_of_rows_draw_is_in_no_order() -> None:
    """The first of them are expressed: they must be no other rows than the rest."""
    numbers = torch.cat([draw for draw, _ in zip(draws(1 << 20, 1000, 0), range(20), strict=False)])
    first = numbers.view(20, 1000)[:, :250].double().mean() / (1 << 20)
    assert float(first) == pytest.approx(0.5, abs=0.03)
