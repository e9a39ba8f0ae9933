"""Check the contract of trainable coefficient models, in addition to that of all coefficient models."""

from __future__ import annotations

import torch
from torch import Tensor

from ebsc_core.plugins.interfaces import Expression, TrainableCoefficientModel
from ebsc_core.testing import common
from ebsc_core.testing.checks import NotApplicable, require
from ebsc_core.testing.coefficients import (
    TOP_K,
    WIDTH,
    CoefficientSubject,
    N,
    contract,
    dense,
    express,
    rows,
)

STEPS, LEARNING_RATE = 20, 1e-3


def _trainable(part: CoefficientSubject, seed: int = 0) -> TrainableCoefficientModel:
    model = part.build(seed)
    if not isinstance(model, TrainableCoefficientModel):
        raise NotApplicable("it does not train")
    return model


def _loss(model: TrainableCoefficientModel, queries: Tensor, dictionary: Tensor) -> Tensor:
    return model.loss(queries, model.express(queries, dictionary, torch.arange(len(queries))))


def _train(model: TrainableCoefficientModel, steps: int = STEPS) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    for _ in range(steps):
        optimizer.zero_grad()
        _loss(model.train(), rows(), rows()).backward()
        optimizer.step()
    model.eval()


@contract.basic
def training_shapes(part: CoefficientSubject) -> None:
    """Return from `express` a reconstruction (B, D) and a scalar penalty, and from `loss` a scalar.

    A joint phase and the refinement train with them.
    """
    model = _trainable(part)
    actual = model.express(rows(9), rows(), torch.arange(9))
    require(isinstance(actual, Expression), f"express returned a {type(actual).__name__}")
    common.require_shape(actual.reconstruction, (9, WIDTH), "the reconstruction")
    common.require_shape(actual.penalty, (), "the penalty")
    common.require_shape(model.loss(rows(9), actual), (), "the loss")


@contract.basic
def finite_loss(part: CoefficientSubject) -> None:
    """Return a finite loss, even if dictionary rows are equal or the dictionary has two rows only.

    A run stops at the first loss that is nan or infinite.
    """
    twice = torch.cat([rows(20), rows(20)])
    for what, given in (("61 rows", rows()), ("duplicates", twice), ("two rows", rows(2))):
        common.require_finite(_loss(_trainable(part), given, given), f"the loss of {what}")


@contract.basic
def finite_gradients(part: CoefficientSubject) -> None:
    """Give every parameter a finite gradient.

    Without a gradient, the optimiser only decays a parameter. One nan makes all weights nan at the next
    step.
    """
    model = _trainable(part)
    _loss(model.train(), rows(), rows()).backward()
    common.require_finite_gradients(model, "of the loss")
    for name, parameter in common.trainable(model):
        require(parameter.grad is not None, f"no gradient reaches {name}")


@contract.check
def loss_falls(part: CoefficientSubject) -> None:
    """Lower the loss in twenty steps of AdamW on the same rows.

    The refinement does this with the run's features. If the loss does not fall, the model learns nothing.
    """
    model = _trainable(part)
    before = _loss(model, rows(), rows()).item()
    _train(model)
    after = _loss(model, rows(), rows()).item()
    require(after < before, f"it was {before:.6g} and is {after:.6g}")


@contract.check
def gradient_reaches_rows(part: CoefficientSubject) -> None:
    """Make `express` differentiable in the queries and in the dictionary.

    In a joint phase this gradient trains the backbone.
    """
    model = _trainable(part)
    queries, dictionary = rows().requires_grad_(), rows(seed=1).requires_grad_()
    model.express(queries, dictionary, torch.full((N,), -1)).reconstruction.square().sum().backward()
    common.require_gradient([("the queries", queries), ("the dictionary", dictionary)])


@contract.check
def rows_take_no_gradient(part: CoefficientSubject) -> None:
    """Do not require a gradient of rows that come without one.

    The refinement uses fixed features. Their gradient would be computed and stored, but nobody reads it.
    """
    queries, dictionary = rows(), rows()
    _loss(_trainable(part).train(), queries, dictionary).backward()
    common.require_no_gradient(queries=queries, dictionary=dictionary)


@contract.check
def training_does_not_mutate(part: CoefficientSubject) -> None:
    """Leave the rows unchanged in `express` and `loss`.

    The rows are a batch of the run's features, or the objective's latest output.
    """
    queries, dictionary = rows(), rows()
    with common.untouched(queries=queries, dictionary=dictionary):
        _loss(_trainable(part).train(), queries, dictionary).backward()


@contract.check
def expresses_as_it_trained(part: CoefficientSubject) -> None:
    """Combine the dictionary in `express` with the same coefficients that `coefficients` returns.

    Otherwise the run trains one thing and clusters another. A usual cause: only one of them excludes own
    rows.
    """
    model = _trainable(part)
    _train(model, 3)
    with torch.no_grad():
        trained = model.express(rows(), rows(), torch.arange(N)).reconstruction
    applied = dense(express(model, rows(), N - 1), N) @ rows()
    common.require_close(applied, trained, "reconstructions by express() and by coefficients() differ")


@contract.check
def weights_survive_a_file(part: CoefficientSubject) -> None:
    """Compute the same coefficients after trained weights are saved and loaded into another model.

    State that is neither parameter nor buffer is lost, and another model would express new images.
    """
    trained, other = _trainable(part, 1), _trainable(part, 2)
    _train(trained, 3)
    common.through_a_file(trained, other)
    actual, expected = (dense(express(model.eval(), rows(), TOP_K), N) for model in (other, trained))
    common.require_close(actual, expected, "the coefficients differ after loading")


contract.check(common.preferences_are_on_the_record)
common.add_options_checks(contract)
