"""Check the contract of every objective."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ebsc_core.plugins.interfaces import Backbone, Objective, Views
from ebsc_core.plugins.registry import Kind
from ebsc_core.testing import common
from ebsc_core.testing.checks import Contract, require
from ebsc_core.testing.subject import Subject
from ebsc_core.utils.distributed import DistributedContext

BATCH, SIDE, WIDTH = 8, 4, 6


class TinyBackbone(Backbone):
    """Compute features with a tiny network for fast checks; it has a batch norm, as real ones do."""

    def __init__(self) -> None:
        super().__init__()
        self.width = WIDTH
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, WIDTH), nn.BatchNorm1d(WIDTH))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


@dataclass(frozen=True)
class _TwoAlike(DistributedContext):
    """Pretend that two processes have the same share of the batch."""

    def gather(self, rows: Tensor) -> Tensor:
        return torch.cat([rows, rows])

    def gather_views(self, rows: Tensor) -> Tensor:
        a, b = rows.chunk(2)
        return torch.cat([a, a, b, b])


class ObjectiveSubject(Subject):
    """Hold an objective under test, on a tiny backbone for grey images of 4x4."""

    def build(self, seed: int = 0) -> Objective:
        """Build a new objective, in training mode."""
        torch.manual_seed(seed)
        return self.made(TinyBackbone(), seed=seed)


contract = Contract(Kind.OBJECTIVE, ObjectiveSubject)


def views(batch: int = BATCH, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Make two views ``(B, 1, 4, 4)`` that have much in common."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(batch, 1, SIDE, SIDE, generator=generator)
    other = (images + 0.2 * torch.rand(images.shape, generator=generator)).clamp(0, 1)
    return images, other


def _batches() -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    yield f"on {BATCH} images", views()
    yield "on 2 images", views(2)
    same = views()[0]
    yield "where both views are the same", (same, same.clone())


@contract.basic
def can_be_built(part: ObjectiveSubject) -> None:
    """Return an `ebsc_core.Objective` from `factory(options, backbone)`.

    A run builds the objective with this call. The class declares the methods that the run calls later.
    """
    built = part.build()
    require(isinstance(built, Objective), f"it returned a {type(built).__name__}")


@contract.basic
def output_shapes(part: ObjectiveSubject) -> None:
    """Return `Views` from `forward`: a scalar loss, features (B, D) and embeddings (B, E) of each view.

    D is the backbone's width and E the objective's. The coefficient model of a joint phase is built for
    them.
    """
    objective = part.build()
    actual = objective(*views())
    require(isinstance(actual, Views), f"forward returned a {type(actual).__name__}")
    common.require_shape(actual.loss, (), "the loss")
    for features, embeddings in zip(actual.features, actual.embeddings, strict=True):
        common.require_shape(features, (BATCH, WIDTH), "features of a view")
        common.require_shape(embeddings, (BATCH, objective.width), "embeddings of a view")


@contract.basic
def output_dtypes(part: ObjectiveSubject) -> None:
    """Return loss and embeddings in float32, even if the network computes in bfloat16.

    Logarithms, exponentials and norms lose too much precision in bfloat16: the loss would stop falling
    early.
    """
    objective = part.build()
    for name, precise in (("float32", True), ("bfloat16", False)):
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            actual = objective(*views())
        for what, tensor in (("the loss", actual.loss), ("embeddings", actual.embeddings[0])):
            require(tensor.dtype == torch.float32, f"computing in {name}, {what}: {tensor.dtype}")


@contract.basic
def devices(part: ObjectiveSubject) -> None:
    """Return the result on the device of the views.

    A tensor made without `device=` is on the CPU, and a run on a GPU stops at the first operation with it.
    """
    for device in common.devices():
        actual = part.build().to(device)(*(view.to(device) for view in views()))
        for what, tensor in (("loss", actual.loss), ("embeddings", actual.embeddings[0])):
            require(tensor.device == device, f"views are on {device}, the {what} on {tensor.device}")


@contract.basic
def finite_loss(part: ObjectiveSubject) -> None:
    """Return a finite loss, also on the smallest batch (2 images) and if both views are the same.

    Such batches occur, and a run stops at the first loss that is nan or infinite.
    """
    for when, batch in _batches():
        common.require_finite(part.build()(*batch).loss, f"the loss {when}")


@contract.basic
def finite_gradients(part: ObjectiveSubject) -> None:
    """Keep the gradients of the loss finite on the same batches.

    One nan in a gradient makes all weights nan at the next step. The usual source is the root of 0.
    """
    for when, batch in _batches():
        objective = part.build()
        objective(*batch).loss.backward()
        common.require_finite_gradients(objective, when)


@contract.check
def gradient_reaches_backbone(part: ObjectiveSubject) -> None:
    """Give the loss a gradient in the weights of the backbone.

    With one `detach()` or `no_grad()` too many, the backbone never learns, although the loss still falls.
    """
    objective = part.build()
    objective(*views()).loss.backward()
    common.require_gradient([("the backbone's first weights", next(objective.backbone.parameters()))])


@contract.check
def own_parameters_learn(part: ObjectiveSubject) -> None:
    """Give each of your own parameters a gradient, or set `requires_grad_(False)`.

    Without a gradient, the optimiser only decays a parameter, and several processes wait for the gradient.
    """
    objective = part.build()
    objective(*views()).loss.backward()
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad and not name.startswith("backbone."):
            require(parameter.grad is not None, f"no gradient reaches {name}")


@contract.check
def images_take_no_gradient(part: ObjectiveSubject) -> None:
    """Do not require a gradient of the views.

    The gradient would be computed and stored for every pixel of every batch, but nobody reads it.
    """
    a, b = views()
    part.build()(a, b).loss.backward()
    common.require_no_gradient(view_a=a, view_b=b)


@contract.check
def inputs_not_mutated(part: ObjectiveSubject) -> None:
    """Leave the views unchanged.

    The run may use them again. An operation in place (`x -= …`, `x.clamp_()`) changes the caller's tensor.
    """
    a, b = views()
    with common.untouched(view_a=a, view_b=b):
        part.build()(a, b).loss.backward()


@contract.check
def unit_length_embeddings(part: ObjectiveSubject) -> None:
    """Return embeddings of length 1.

    Coefficient models and clusterers expect rows of unit length.
    """
    for embeddings in part.build()(*views()).embeddings:
        common.require_close(embeddings.norm(dim=1), torch.ones(BATCH), "their length is not 1")


@contract.check
def same_seed_same_result(part: ObjectiveSubject) -> None:
    """Make the same weights and the same loss when built and called with the same seed.

    The same seed must give the same run. Only torch's generator is seeded, not NumPy's and not `random`.
    """
    first, second = part.build(3), part.build(3)
    common.require_same_weights(first, second)
    losses = []
    for objective in (first, second):
        torch.manual_seed(4)
        losses.append(objective(*views()).loss)
    common.require_close(losses[0], losses[1], "two calls under the same seed gave different losses")


@contract.check
def order_of_images(part: ObjectiveSubject) -> None:
    """Compute the same loss in any order of the images, if both views have the same order.

    Batches are drawn at random and gathered from several processes, so their order has no meaning.
    """
    first, second = part.build(), part.build()
    second.load_state_dict(first.state_dict())
    reversed_views = (view.flip(0) for view in views())
    actual, expected = second(*reversed_views).loss, first(*views()).loss
    common.require_close(actual, expected, "the loss differs when the images are reversed")


@contract.check
def gathers_from_all_processes(part: ObjectiveSubject) -> None:
    """Describe the whole batch if each process has a share of it (`self.ranks.gather_views`).

    Otherwise each process compares only its own rows, and trains with another loss than one process would.
    """
    objective = part.build()
    objective.ranks = _TwoAlike()
    actual = objective(*views())
    for what, rows in (("features", actual.features[0]), ("embeddings", actual.embeddings[0])):
        require(
            len(rows) == 2 * BATCH, f"of two processes with {BATCH} images each, {len(rows)} {what} remain"
        )


@contract.check
def weights_survive_a_file(part: ObjectiveSubject) -> None:
    """Compute the same loss after weights are saved and loaded into another objective.

    State that is neither parameter nor buffer is lost when features come from the cache or a run is
    resumed.
    """
    trained, other = part.build(1), part.build(2)
    trained.before_training(2)
    optimizer = torch.optim.SGD([value for _, value in common.trainable(trained)], lr=0.1)
    trained(*views()).loss.backward()
    optimizer.step()
    trained.after_step()
    common.through_a_file(trained, other)
    actual, expected = other.eval()(*views()).loss, trained.eval()(*views()).loss
    common.require_close(actual, expected, "the loss differs after loading")


contract.check(common.preferences_are_on_the_record)
common.add_options_checks(contract)
