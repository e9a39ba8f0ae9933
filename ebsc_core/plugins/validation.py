"""Check one plugin: the hooks that it implements and the records that they yield."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from typing import Any

import pluggy

from ebsc_core.plugins.hookspecs import (
    API_VERSION,
    ENTRY_POINT_GROUP,
    Component,
    ComponentFamily,
    ComponentSpec,
    Hooks,
    RunHooks,
)
from ebsc_core.plugins.kinds import Kind

PREFIX = "ebsc_"
# Of each preference on a record: the kind of component that has it, its values, and how to see that.
PREFERENCES: dict[str, tuple[Kind, str, Callable[[Any], bool]]] = {
    "top_k": (Kind.COEFFICIENTS, "a whole number from 1", lambda value: type(value) is int and value > 0),
    "whiten": (
        Kind.COEFFICIENTS,
        "True, False or 'neighbors'",
        lambda value: isinstance(value, bool) or value == "neighbors",
    ),
    "express": (
        Kind.OBJECTIVE,
        "'features' or 'embeddings'",
        lambda value: value in ("features", "embeddings"),
    ),
}
# The attributes of a class that stated the preferences before records did.
FORMER_ATTRIBUTES = {"top_k": "default_top_k", "whiten": "default_whiten", "express": "expresses"}


def records_of(plugin: object) -> Iterator[tuple[Kind, Component]]:
    """Yield the records of a plugin's hooks, kind by kind; raise an error if one is invalid."""
    manager = hooked(plugin, Hooks)
    for kind in Kind:
        hook = getattr(manager.hook, kind.hook)
        yielded = hook()
        if hook.get_hookimpls() and not yielded:  # pluggy drops None
            raise TypeError(f"{kind.hook} returned nothing; it must yield or return records")
        for components in yielded:
            if not isinstance(components, Iterable):
                found = type(components).__name__
                raise TypeError(
                    f"{kind.hook} returned a {found}; it must yield records or return a list of them"
                )
            for component in components:
                if not isinstance(component, ComponentSpec | ComponentFamily):
                    found = type(component).__name__
                    raise TypeError(f"{kind.hook} yielded a {found}, not a ComponentSpec or ComponentFamily")
                yield kind, component


def check_record(kind: Kind, component: Component) -> None:
    """Raise a TypeError if a record is invalid."""
    for name in ("name", "summary", "reference"):
        text = getattr(component, name)
        if not (isinstance(text, str) and text.isprintable()):
            raise TypeError(f"{kind.hook} yielded a record whose {name} is not a line of text: {text!r}")
    if not re.fullmatch(r"[^\W_][\w+-]*", component.name):
        raise TypeError(f"the name {component.name!r} may hold letters, digits, hyphens, _ and + only")
    if component.api_version != API_VERSION:
        raise TypeError(
            f"{component.name!r} is written for api_version {component.api_version!r}, this is {API_VERSION}"
        )
    loader = component.factory if isinstance(component, ComponentSpec) else component.resolve
    if not callable(loader) and not (isinstance(loader, str) and re.fullmatch(r"[\w.]+:\w+", loader)):
        raise TypeError(f'{component.name!r}: {loader!r} is neither callable nor "package.module:attribute"')
    if isinstance(component, ComponentSpec):
        # What is an import string is not imported now; SelectedComponent.options_class checks it when it is.
        options = component.options or getattr(component.factory, "Options", None)
        if problem := claimed(options, kind):
            raise TypeError(f"{component.name!r}: {problem}")
        _check_preferences(kind, component)
        if component.start is not None and kind is not Kind.BACKBONE:
            owner = Kind.BACKBONE.hook
            raise TypeError(f"{component.name!r}: start is for records of {owner}, this is of {kind.hook}")


def _check_preferences(kind: Kind, spec: ComponentSpec) -> None:
    for name, (owner, values, fits) in PREFERENCES.items():
        value = getattr(spec, name)
        if value is None:
            continue
        if kind is not owner:
            raise TypeError(f"{spec.name!r}: {name} is for records of {owner.hook}, this is of {kind.hook}")
        if not fits(value):
            raise TypeError(f"{spec.name!r}: {name} is {value!r}, not {values}")


def former_preferences(kind: Kind, spec: ComponentSpec, factory: object) -> dict[str, Any]:
    """Return the preferences that attributes of the factory state and the record does not."""
    return {
        name: value
        for name, (owner, *_) in PREFERENCES.items()
        if kind is owner and getattr(spec, name) is None
        if (value := getattr(factory, FORMER_ATTRIBUTES[name], None)) is not None
    }


def describe_former(preferences: dict[str, Any]) -> str:
    """Say in one line where preferences stand that attributes of a class have stated."""
    attributes = " and ".join(FORMER_ATTRIBUTES[name] for name in preferences)
    fields = ", ".join(f"{name}={value!r}" for name, value in preferences.items())
    return f"its class says {attributes}; this belongs on its record: ComponentSpec(…, {fields})"


def claimed(options: object, kind: Kind) -> str:
    """Return what is wrong if a component's option has the name of a framework setting, else ``""``."""
    fields = getattr(options, "model_fields", None)
    if not fields:
        return ""
    from ebsc_core.config.loading import own_settings

    # Two sections can choose a coefficient model.
    for section in (kind.section, "joint") if kind is Kind.COEFFICIENTS else (kind.section,):
        for name in own_settings(section):
            if name in fields:
                return f"its option {name!r} is a setting of [{section}] itself; call it otherwise"
    return ""


def hooked(plugin: object, specs: type) -> pluggy.PluginManager:
    """Register ``plugin`` with a manager of its own, so that its faults do not affect others.

    Parameters
    ----------
    specs : type
        The class that declares the hooks: ``Hooks``, or ``RunHooks`` for an observer.

    Raises
    ------
    TypeError
        If the plugin implements no hook or an unknown one, or if a function has the name of a hook but no
        mark. The message names the hook that was probably meant.
    pluggy.PluginValidationError
        If a hook takes unknown arguments.
    """
    manager = pluggy.PluginManager(ENTRY_POINT_GROUP)
    manager.add_hookspecs(specs)
    # Messages of pluggy have this name; of an object it would be a number.
    manager.register(plugin, getattr(plugin, "__name__", type(plugin).__name__))
    callers = manager.get_hookcallers(plugin) or []
    for caller in callers:
        if not caller.has_spec() and not all(made.optionalhook for made in caller.get_hookimpls()):
            raise TypeError(f"there is no hook {caller.name!r}: {_meant(caller.name, specs)}")
    for name in dir(plugin):
        if (
            name.startswith(PREFIX)
            and (name in hook_names(specs) or _near(name, specs))
            and inspect.isroutine(inspect.getattr_static(plugin, name))
            and manager.parse_hookimpl_opts(plugin, name) is None
        ):
            raise TypeError(f"{name!r} is not marked with @hookimpl: {_meant(name, specs)}")
    if not callers:
        raise TypeError(f"it implements no hook; there are {', '.join(hook_names(specs))}")
    return manager


def hook_names(specs: type) -> list[str]:
    """Return the names of the hooks that ``specs`` declares, in its order."""
    return [name for name in vars(specs) if name.startswith(PREFIX)]


def _meant(name: str, specs: type) -> str:
    if name in hook_names(specs):
        return "without the mark it is never called"
    if specs is Hooks and name in hook_names(RunHooks):
        return "it is a hook of observers, which are offered through ebsc_observers"
    near = _near(name, specs)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(hook_names(specs))}"


def _near(name: str, specs: type) -> list[str]:
    return get_close_matches(name, hook_names(specs), n=1, cutoff=0.8)
