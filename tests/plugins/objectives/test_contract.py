"""What every objective owes the framework."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ebsc_core.plugins.interfaces import Objective
from ebsc_plugins.objectives.barlow_twins import BarlowTwins
from ebsc_plugins.objectives.byol import BYOL
from ebsc_plugins.objectives.moco_v3 import MoCoV3
from ebsc_plugins.objectives.simclr import SimCLR
from ebsc_plugins.objectives.simsiam import SimSiam
from ebsc_plugins.objectives.vicreg import VICReg

Build = Callable[..., Objective]
MakeViews = Callable[..., tuple[Tensor, Tensor]]

PREDICTIVE = [BYOL, MoCoV3, SimSiam]
each = pytest.mark.parametrize("kind", [SimCLR, BarlowTwins, VICReg, *PREDICTIVE])


@each
def test_each_view_has_its_own_half(build: Build, views: MakeViews, kind: type[Objective]) -> None:
    objective, (a, b) = build(kind).eval(), views()
    found = objective(a, b)
    for view, features, embeddings in zip((a, b), found.features, found.embeddings, strict=True):
        torch.testing.assert_close(features, objective.backbone(view))
        torch.testing.assert_close(embeddings, objective.embed(features))


@each
def test_the_order_of_the_views_does_not_matter(
    build: Build, views: MakeViews, kind: type[Objective]
) -> None:
    objective, (a, b) = build(kind).eval(), views()
    torch.testing.assert_close(objective(a, b).loss, objective(b, a).loss)


@each
def test_the_order_of_the_images_does_not_matter(
    build: Build, views: MakeViews, kind: type[Objective]
) -> None:
    objective, (a, b) = build(kind), views()
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(objective(a, b).loss, objective(a[order], b[order]).loss)
    assert not torch.allclose(objective(a, b).loss, objective(a, b[order]).loss, rtol=1e-3)


@each
def test_bf16_gives_a_float32_loss_close_to_that_of_float32(
    build: Build, views: MakeViews, kind: type[Objective]
) -> None:
    objective, (a, b) = build(kind).eval(), views()
    exact = objective(a, b)
    with torch.autocast("cpu", torch.bfloat16):
        found = objective(a, b)
    assert found.loss.dtype == torch.float32
    assert found.embeddings[0].dtype == torch.float32
    torch.testing.assert_close(found.loss, exact.loss, rtol=0.05, atol=0.05)
    torch.testing.assert_close(found.embeddings[0].norm(dim=1), torch.ones(5), rtol=0, atol=1e-5)


@each
def test_the_loss_itself_is_computed_in_float32(
    build: Build, views: MakeViews, kind: type[Objective], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Tensor] = []

    def loss(a: Tensor, b: Tensor) -> Tensor:
        heard.extend((a, b, a @ b.T))
        return a.sum()

    objective = build(kind)
    monkeypatch.setattr(objective, "loss", loss)
    with torch.autocast("cpu", torch.bfloat16):
        objective(*views())
    assert {tensor.dtype for tensor in heard} == {torch.float32}


@each
def test_the_seed_decides(build: Build, kind: type[Objective]) -> None:
    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return torch.cat([value.flatten().float() for value in build(kind).state_dict().values()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
