"""``ebsc plugins``: what is installed, and what each part can be told."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ebsc_core.hookspecs import Component, ComponentFamily, ComponentSpec
from ebsc_core.registry import Kind, Part, Provider, Registry, UnknownPartError

app = typer.Typer(help="See what parts are installed and what they can be told.", no_args_is_help=True)


@app.command("list")
def list_plugins() -> None:
    """All installed parts by kind; * marks what a run uses when it names none."""
    registry = Registry()
    console = Console(highlight=False)
    for kind in Kind:
        table = Table(
            "name", "what it is", "from", title=f"{kind.words}s (--{kind.section})", title_justify="left"
        )
        for entry in registry.of(kind):
            single = isinstance(entry.component, ComponentSpec)
            default = single and entry.component.default  # type: ignore[union-attr]
            name = entry.name + ("*" if default else "") if single else f"({entry.name})"
            table.add_row(escape(name), escape(entry.component.summary), escape(str(entry.provider)))
        console.print(table)
    for failure in registry.failures:
        console.print(
            f"[red]not loaded:[/] {escape(failure.plugin)} of {escape(str(failure.provider))}: "
            f"{escape(failure.reason)}"
        )


@app.command()
def show(name: Annotated[str, typer.Argument(help="A part's name, e.g. simclr.")]) -> None:
    """One part: its options with types, defaults and meaning, its source, and who supplied it."""
    registry = Registry()
    console = Console(highlight=False, soft_wrap=True)
    families = [e for e in registry.entries if isinstance(e.component, ComponentFamily) and e.name == name]
    for entry in families:
        _print_head(console, f"({name})", entry.kind, entry.component, entry.provider)
    for part in _called(registry, name, required=not families):
        _print_head(console, part.name, part.kind, part.spec, part.provider)
        _print_options(console, part)


def _print_head(console: Console, name: str, kind: Kind, component: Component, provider: Provider) -> None:
    console.print(f"[bold]{escape(name)}[/] ({kind.words})")
    console.print(escape(component.summary))
    console.print(f"source:  {escape(component.reference or 'not stated')}")
    console.print(f"from:    {escape(str(provider))}")


def _called(registry: Registry, name: str, required: bool) -> list[Part]:
    parts = []
    for kind in Kind:
        with suppress(UnknownPartError):
            parts.append(registry.find(kind, name))
    if required and not parts:
        raise UnknownPartError(f"no part is called {name!r}: {registry.hint(name, Kind)}")
    return parts


def _print_options(console: Console, part: Part) -> None:
    fields: dict[str, Any] = part.options_class.model_fields  # type: ignore[attr-defined]
    if not fields:
        console.print("options: none")
        return
    table = Table("option", "type", "default", "meaning", title_justify="left")
    for option, field in fields.items():
        annotation = field.annotation
        kind = annotation.__name__ if isinstance(annotation, type) else str(annotation)
        default = "required" if field.is_required() else repr(field.default)
        name = f"{part.kind.section}.{option}"
        table.add_row(
            name, escape(kind.replace("typing.", "")), escape(default), escape(field.description or "")
        )
    console.print(table)
