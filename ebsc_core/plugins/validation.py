"""The records a plugin yields, and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ebsc_core.hooked import hooked
from ebsc_core.plugins.hookspecs import API_VERSION, Component, ComponentFamily, ComponentSpec, Hooks
from ebsc_core.plugins.kinds import Kind


def records_of(plugin: object) -> Iterator[tuple[Kind, Component]]:
    """What a plugin's hooks yield, in the order of the kinds; raises whatever is wrong with them."""
    manager = hooked(plugin, Hooks)
    for kind in Kind:
        hook = getattr(manager.hook, kind.hook)
        yielded = hook()
        if hook.get_hookimpls() and not yielded:  # pluggy drops None
            raise TypeError(f"{kind.hook} returned nothing; it must yield or return records")
        for components in yielded:
            for component in components:
                if not isinstance(component, ComponentSpec | ComponentFamily):
                    found = type(component).__name__
                    raise TypeError(f"{kind.hook} yielded a {found}, not a ComponentSpec or ComponentFamily")
                yield kind, component


def check_record(kind: Kind, component: Component) -> None:
    """Raise a TypeError if a record is not as it must be."""
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
        # What is an import string is not imported now; Part.options_class checks it when it is.
        options = component.options or getattr(component.factory, "Options", None)
        if problem := claimed(options, kind):
            raise TypeError(f"{component.name!r}: {problem}")


def claimed(options: object, kind: Kind) -> str:
    """What is wrong with the names of a part's options, as the framework claims some; or nothing."""
    fields = getattr(options, "model_fields", None)
    if not fields:
        return ""
    from ebsc_core.config.schema import own_settings

    # A coefficient model may be chosen in two places.
    for section in (kind.section, "joint") if kind is Kind.COEFFICIENTS else (kind.section,):
        for name in own_settings(section):
            if name in fields:
                return f"its option {name!r} is a setting of [{section}] itself; call it otherwise"
    return ""
