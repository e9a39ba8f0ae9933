"""Describe mistakes in a configuration in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from ebsc_core.utils.errors import shortened


def describe(
    error: ValidationError, model: type[BaseModel], prefix: str, also_known: Iterable[str] = ()
) -> str:
    """Describe the first problem of a validation error on one line.

    The line names the setting, the problem and, for an unknown name, the nearest known name.
    """
    problem = error.errors(include_url=False)[0]
    path = [str(part) for part in problem["loc"]]
    whole = [prefix, *path] if prefix else path
    setting = shortened(".".join(whole))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if problem["type"] == "extra_forbidden":
        known = [*field_names(model, path[:-1]), *also_known]
        in_a_section = [
            f"{name}.{path[-1]}" for name in known if path[-1] in field_names(model, [*path[:-1], name])
        ]
        near = in_a_section or get_close_matches(path[-1], known, n=1, cutoff=0.5)
        hint = f"known: {', '.join(known) or 'none'}"
        if near:
            hint = f"did you mean {'.'.join([*whole[:-1], near[0]])!r}?"
        return f"unknown option {setting!r}: {hint}{more}"
    if problem["type"] == "model_type":
        return f"{setting!r} is a section, not an option: set what is in it, got {_shown(problem)}{more}"
    if problem["type"] == "missing":
        return f"{setting!r} is missing{more}"
    message = problem["msg"].removeprefix("Value error, ").replace("dictionary", "table")
    message = message[0].lower() + message[1:]
    return f"option {setting!r}: {message}, got {_shown(problem)}{more}"


def _shown(problem: Mapping[str, Any]) -> str:
    """Return the wrong value as Python writes it, as far as a line has room."""
    try:
        return shortened(repr(problem["input"]))
    except ValueError:  # Python does not write numbers of thousands of digits
        return "a number of thousands of digits"


def field_names(model: type[BaseModel], path: list[str]) -> list[str]:
    """Return the field names of a model at a path of sections."""
    for part in path:
        if part not in model.model_fields:
            return []
        annotation = model.model_fields[part].annotation
        choices = get_args(annotation) or (annotation,)  # a section may be left out: Section | None
        sections = [one for one in choices if isinstance(one, type) and issubclass(one, BaseModel)]
        if not sections:
            return []
        model = sections[0]
    return list(model.model_fields)
