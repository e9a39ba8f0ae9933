"""Implement ``ebsc plugins``: list, describe and check components, or write a new package."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from ebsc_cli.completion import one_of
from ebsc_cli.tables import plain_console, table_console
from ebsc_core.config.flags import FLAGS
from ebsc_core.plugins.hookspecs import Component, ComponentFamily, ComponentSpec
from ebsc_core.plugins.installed import Provider
from ebsc_core.plugins.kinds import REQUIRED
from ebsc_core.plugins.registry import (
    BrokenPluginError,
    Entry,
    Kind,
    Registry,
    SelectedComponent,
    UnknownComponentError,
)
from ebsc_core.utils.errors import ComponentError, printable, shortened

if TYPE_CHECKING:
    from ebsc_core.config.options import Options

# The kinds of component that `ebsc plugins new` writes a package for.
KINDS = (*(kind.section for kind in REQUIRED), "observer")


def list_plugins(
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the installed components by kind; * marks the default of a kind.

    The list ends with the plugins that do not load, and the reasons.
    """
    registry = Registry()
    defaults = _defaults(registry)
    if as_json:
        import json

        print(json.dumps(_listing(registry, defaults), indent=2))
        return
    console = table_console()
    for kind in Kind:
        flag, _ = FLAGS[kind.setting]
        table = Table("name", "description", "from", title=f"{kind.words}s ({flag})", title_justify="left")
        for entry in registry.of(kind):
            single = isinstance(entry.component, ComponentSpec)
            name = entry.name + "*" * (entry in defaults) if single else f"({entry.name})"
            table.add_row(*map(Text, (name, entry.component.summary, str(entry.provider))))
        console.print(table)
    console.print(
        Text("* default; (…) family of components, named by path or by their library's names", "dim")
    )
    problems = [("red", "not loaded", f"{one}: {shortened(one.reason)}") for one in registry.failures]
    problems += [
        ("yellow", "slow", f"{plugin} takes {plugin.seconds:.1f} s to load")
        for plugin in registry.plugins
        if plugin.status == "slow"
    ]
    problems += [("yellow", "conflict", line) for line in registry.conflicts()]
    for color, title, line in problems:
        console.print(Text.assemble((f"{title}:", color), f" {printable(line)}"), soft_wrap=True)


def _defaults(registry: Registry) -> list[Entry]:
    found = []
    for kind in Kind:
        with suppress(ComponentError):
            found.append(registry.default_entry(kind))
    return found


def _listing(registry: Registry, defaults: list[Entry]) -> dict[str, Any]:
    return {
        "plugins": [
            {
                "plugin": plugin.plugin,
                "distribution": plugin.provider.distribution,
                "version": plugin.provider.version,
                "status": plugin.status,
                "reason": plugin.reason,
                "seconds": round(plugin.seconds, 3),
            }
            for plugin in registry.plugins
        ],
        "parts": [
            {
                "kind": kind.words,
                "section": kind.section,
                "name": entry.name,
                "family": isinstance(entry.component, ComponentFamily),
                "default": entry in defaults,
                "summary": entry.component.summary,
                "reference": entry.component.reference,
                "distribution": entry.provider.distribution,
                "version": entry.provider.version,
            }
            for kind in Kind
            for entry in registry.of(kind)
        ],
        "conflicts": registry.conflicts(),
    }


def show(name: Annotated[str, typer.Argument(help="The name of a component, e.g. simclr.")]) -> None:
    """Show one component: its options with types, defaults and meaning, its source and its distribution."""
    registry = Registry()
    console = plain_console()
    families = [e for e in registry.entries if isinstance(e.component, ComponentFamily) and e.name == name]
    for entry in families:
        _print_head(console, f"({name})", entry.kind, entry.component, entry.provider)
        if options := registry.options_of(entry):
            _print_options(console, entry.kind.settings(name), options)
    for component in _called(registry, name, required=not families):
        _print_head(console, component.name, component.kind, component.spec, component.provider)
        _print_options(console, component.kind.settings(component.name), component.options_class)


def new(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="The kind: data, backbone, objective, coefficients, clusterer or observer.",
            autocompletion=one_of(*KINDS),
        ),
    ],
    name: Annotated[str, typer.Argument(help="The name of the component in runs, e.g. my-loss.")],
    into: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The new folder. \\[default: ebsc-NAME in the current one]"),
    ] = None,
) -> None:
    """Write a package with a new component and its tests. It works as it is, and you can change it."""
    from ebsc_core.plugins.scaffold import LICENSE, UNKNOWN, author, write_package

    by = author()
    folder = write_package(kind, name, into, Registry(), by)
    print(f"wrote {folder}: its README.md says what to change")
    who = "the author is a placeholder" if by == UNKNOWN else f"the author is {by.name}, as git says"
    print(f"in its pyproject.toml, {who}, and the licence is {LICENSE}: change what is wrong; next, run:")
    print(
        f"  cd {shlex.quote(str(folder))} && pip install -e '.[test]' && pytest && ebsc run --{kind} {name}"
    )


def _print_head(console: Console, name: str, kind: Kind, component: Component, provider: Provider) -> None:
    console.print(Text.assemble((name, "bold"), f" ({kind.words})"))
    console.print(component.summary)
    console.print(f"source:  {component.reference or 'not stated'}")
    console.print(f"from:    {provider}")


def _called(registry: Registry, name: str, required: bool) -> list[SelectedComponent]:
    parts, broken = [], None
    for kind in Kind:
        try:
            parts.append(registry.find(kind, name))
        except BrokenPluginError as error:
            broken = error
        except UnknownComponentError:
            pass
    if broken and not parts:
        raise broken
    if required and not parts:
        raise UnknownComponentError(f"no component is called {name!r}: {registry.hint(name, Kind)}")
    return parts


def _print_options(console: Console, section: str, options: type[Options]) -> None:
    fields = options.model_fields
    if not fields:
        console.print("options: none")
        return
    # A name that is cut off cannot be typed.
    whole = Column("option", overflow="fold")
    table = Table(whole, "type", "default", "meaning", title_justify="left")
    for option, field in fields.items():
        annotation = field.annotation
        kind = annotation.__name__ if isinstance(annotation, type) else str(annotation)
        default = "required" if field.is_required() else repr(field.default)
        table.add_row(
            f"{section}.{option}",
            kind.replace("typing.", ""),
            default,
            field.description or "",
        )
    console.print(table)
