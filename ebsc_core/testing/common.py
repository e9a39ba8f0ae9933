"""Share helpers between the checks of several kinds: comparisons, devices, seeds, checks of options."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import tomli_w
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from ebsc_core.config.loading import without_none
from ebsc_core.config.options import Options
from ebsc_core.plugins.validation import describe_former, former_preferences
from ebsc_core.testing.checks import Contract, ContractBroken, NotApplicable, require
from ebsc_core.testing.subject import Subject
from ebsc_core.utils.weights import read_weights, save_weights

# Sums of float32 values in different orders differ by about this.
ROUNDING = 1e-4


def devices() -> list[torch.device]:
    """Return the devices of this machine: the CPU, and CUDA's or Metal's if there is one."""
    available = [torch.device("cpu")]
    if torch.cuda.is_available():
        available.append(torch.device("cuda", torch.cuda.current_device()))
    if torch.backends.mps.is_available():
        available.append(torch.device("mps", 0))
    return available


def require_shape(tensor: object, shape: tuple[int, ...], what: str) -> None:
    """Require a tensor of this shape."""
    require(isinstance(tensor, Tensor), f"{what}: a {type(tensor).__name__}, not a torch.Tensor")
    assert isinstance(tensor, Tensor)
    require(tuple(tensor.shape) == shape, f"{what}: shape {tuple(tensor.shape)}, expected {shape}")


def require_close(actual: Tensor, expected: Tensor, what: str) -> None:
    """Require equal values up to rounding, relative to the largest value; nan counts as different."""
    actual, expected = actual.detach().double().cpu(), expected.detach().double().cpu()
    difference = (actual - expected).abs().max().item() if actual.numel() else 0.0
    scale = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
    require(difference <= ROUNDING * scale, f"{what} (largest difference {difference:.2g})")


def require_finite(tensor: Tensor, what: str) -> None:
    """Require that no value is nan or infinite."""
    bad = int((~torch.isfinite(tensor)).sum())
    require(not bad, f"{bad} of {tensor.numel()} values of {what} are nan or infinite")


def require_sentences(component: object) -> None:
    """Require that ``warnings_``, if the component has it, is a list of texts, each on one line."""
    said = getattr(component, "warnings_", [])
    fine = isinstance(said, list) and all(isinstance(s, str) and s and "\n" not in s for s in said)
    require(fine, f"warnings_ is {said!r}")


@contextmanager
def untouched(**tensors: Tensor) -> Iterator[None]:
    """Require that the code inside the block does not change these tensors."""
    before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    yield
    for name, tensor in tensors.items():
        require(torch.equal(tensor.detach(), before[name]), f"{name} has other values afterwards")


def require_no_gradient(**tensors: Tensor) -> None:
    """Require that tensors passed without a gradient have none afterwards."""
    for name, tensor in tensors.items():
        require(not tensor.requires_grad, f"{name} require a gradient afterwards (requires_grad is True)")
        require(tensor.grad is None, f"{name} have a gradient afterwards (grad is not None)")


def require_gradient(tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Require that each of these tensors has a gradient that is not zero everywhere."""
    for name, tensor in tensors:
        require(tensor.grad is not None, f"no gradient reaches {name} (grad is None)")
        assert tensor.grad is not None
        require(bool(tensor.grad.abs().sum() > 0), f"the gradient of {name} is zero everywhere")


def require_finite_gradients(module: nn.Module, when: str) -> None:
    """Require that the gradients of a module's parameters, if any, are finite."""
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            require_finite(parameter.grad, f"the gradient of {name} {when}")


def require_same_weights(first: nn.Module, second: nn.Module) -> None:
    """Require equal parameters and buffers."""
    others = second.state_dict()
    for name, value in first.state_dict().items():
        same = name in others and torch.equal(value, others[name])
        require(same, f"{name} differs between two built with the same seed")


def through_a_file(module: nn.Module, other: nn.Module) -> None:
    """Save a module's weights as a run does and load them into another of its kind."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_weights(module, path)
        other.load_state_dict(read_weights(other, path))


def moved(part: Any, device: torch.device) -> Any:
    """Move a component to a device if it is a module; other components compute where their input is."""
    return part.to(device) if isinstance(part, nn.Module) else part


def trainable(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return the names and parameters that are trained."""
    parameters = [(name, value) for name, value in module.named_parameters() if value.requires_grad]
    if not parameters:
        raise NotApplicable("there are no parameters to train")
    return parameters


def add_options_checks(contract: Contract) -> None:
    """Add the checks of options, which are the same for every kind of component."""
    checks: list[Callable[[Subject], None]] = [
        options_are_described,
        unknown_options_are_refused,
        options_round_trip,
    ]
    for check in checks:
        contract.check(check)


def preferences_are_on_the_record(part: Subject) -> None:
    """State preferences on the `ComponentSpec`: `top_k`, `whiten`, `express`.

    Attributes of the class (`default_top_k`, `default_whiten`, `expresses`) still count, but every
    run warns of them.
    """
    component = part.choice.component
    former = former_preferences(component.kind, component.spec, component.factory)
    require(not former, describe_former(former))


def options_are_described(part: Subject) -> None:
    """Put a docstring under every option.

    `ebsc plugins show` prints the docstring. Without it, a user sees only the name of the option.
    """
    fields = type(part.choice.options).model_fields
    bare = [name for name, field in fields.items() if not field.description]
    require(not bare, f"no docstring under {', '.join(bare)}")


def unknown_options_are_refused(part: Subject) -> None:
    """Refuse options that do not exist.

    Otherwise a misspelt option is ignored without a message, and the run is not the one that the user
    wanted.
    """
    made_up = {"no_such_option_": 1}
    try:
        type(part.choice.options)(**part.choice.options.model_dump(), **made_up)
    except ValidationError:
        return
    raise ContractBroken("no_such_option_ = 1 was accepted")


def options_round_trip(part: Subject) -> None:
    """Keep the same options when they are written as JSON or TOML and read back.

    `run.toml` repeats a run, and a digest of the same values finds trained features again. TOML has no
    null, so an option that may be None must have None as its default.
    """
    for options in _variations(part.choice.options):
        values = options.model_dump(mode="json")
        _require_same(json.loads(json.dumps(values)), options, "JSON")
        _require_same(tomllib.loads(tomli_w.dumps(without_none(values))), options, "TOML")


def _require_same(values: dict[str, Any], options: Options, form: str) -> None:
    try:
        again = type(options)(**values)
    except ValidationError as error:
        at, why = error.errors()[0]["loc"], error.errors()[0]["msg"]
        raise ContractBroken(f"{'.'.join(map(str, at))} cannot be read back from {form}: {why}") from None
    for name in type(options).model_fields:
        before, after = getattr(options, name), getattr(again, name)
        require(before == after, f"{name} was {before!r}, but {after!r} when read back from {form}")


def _variations(options: Options) -> Iterator[Options]:
    """Yield these options, and variants that differ in one value each, if the variant is valid."""
    yield options
    values = options.model_dump()
    for name, field in type(options).model_fields.items():
        optional = [None] if type(None) in get_args(field.annotation) else []
        for other in _others(getattr(options, name), field.annotation) + optional:
            try:
                changed = type(options)(**values | {name: other})
            except ValidationError:
                continue
            yield changed


def _others(value: Any, annotation: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1]
    if isinstance(value, float):
        return [value * 0.7391234567, value + 0.1234567891]
    if isinstance(value, str):
        choices = [choice for choice in get_args(annotation) if isinstance(choice, str)]
        return [choice for choice in choices if choice != value] or [value + "x"]
    if value is None:
        return [2, 0.7391234567, "x", True]
    return []
