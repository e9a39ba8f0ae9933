"""Lay out the help of a command: whole words and one default for each option, at any width.

Typer's own layout has five columns. On 80 characters, it leaves so few to the last one that words break. It
also needs packages for Markdown and for colours of code, whose import takes longer than the command.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# Names of up to so many characters have their meaning beside them, longer ones below.
WIDEST, INDENT, NARROWEST = 24, "  ", 24


class HelpfulCommand(TyperCommand):
    """Show help in the layout of this module."""

    def get_help_option(self, ctx: Any) -> Any:
        return with_plain_default(super().get_help_option(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(page(self, ctx))


class HelpfulGroup(TyperGroup):
    """Show help in the layout of this module, with the commands of the group."""

    def get_help_option(self, ctx: Any) -> Any:
        return with_plain_default(super().get_help_option(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(page(self, ctx, self.summaries()))

    def summaries(self) -> dict[str, str]:
        """Return what each command does, in one line."""
        raise NotImplementedError


def with_plain_default(option: Any) -> Any:
    """Give one of Typer's own flags the value False unless it is set.

    Typer gives it None, and imports pydantic in every command to check that.
    """
    if option is not None:
        option.default = False
    return option


def page(command: Any, ctx: Any, commands: dict[str, str] | None = None) -> str:
    """Return the help of a command, with colours if the output is a terminal."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    with console.capture() as captured:
        console.print(Text.assemble(("Usage: ", "bold"), " ".join(_usage(command, ctx))))
        for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
            console.print()
            console.print(Text.from_markup(" ".join(paragraph.split())))
        panels: dict[str, list[tuple[str, Text]]] = {}
        for parameter in command.get_params(ctx):
            if not getattr(parameter, "hidden", False):
                panels.setdefault(_panel(parameter), []).append((_label(parameter), _meaning(parameter)))
        if commands:
            panels["Commands"] = [(name, Text.from_markup(text)) for name, text in commands.items()]
        for title, rows in panels.items():
            _print_rows(console, title, rows)
        if command.epilog:
            console.print("\n[bold]Example[/]")
            console.print(Text(f"{INDENT}{command.epilog}"), soft_wrap=True)
    return "\n".join(line.rstrip() for line in captured.get().split("\n"))


def _usage(command: Any, ctx: Any) -> Iterable[str]:
    yield ctx.command_path
    yield command.options_metavar
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = _label(parameter)
            yield name if parameter.required or name.startswith("[") else f"[{name}]"
    if isinstance(command, TyperGroup):
        yield command.subcommand_metavar


def _panel(parameter: Any) -> str:
    panel = getattr(parameter, "rich_help_panel", None)
    return panel or ("Arguments" if parameter.param_type_name == "argument" else "Options")


def _label(parameter: Any) -> str:
    """Return the names of an option and what it takes, or the name of an argument."""
    if parameter.param_type_name == "argument":
        return parameter.metavar or parameter.name.upper()
    names = [*sorted(parameter.opts, key=len), *parameter.secondary_opts]
    return ", ".join(names) + ("" if parameter.is_flag else f" {parameter.metavar or 'VALUE'}")


def _meaning(parameter: Any) -> Text:
    """Return the help of an option or argument, which ends with its default."""
    from rich.text import Text

    meaning = Text.from_markup(parameter.help or "")
    if "[default:" not in meaning.plain and (default := _default(parameter)):
        meaning.append(f" [default: {default}]")
    meaning.highlight_regex(r"\[default: .*\]", "dim")
    return meaning


def _default(parameter: Any) -> str:
    """Return the default to show; an argument that must be given and a plain switch have none."""
    default = parameter.default
    if parameter.required or (getattr(parameter, "is_flag", False) and not default):
        return ""
    if default is True:
        return parameter.opts[0]
    return "none" if default is None else str(default)


def _print_rows(console: Console, title: str, rows: list[tuple[str, Text]]) -> None:
    """Print names and meanings as two columns."""
    from rich.text import Text

    console.print(f"\n[bold]{title}[/]")
    indent = len(INDENT) * 2 + min(WIDEST, max(len(label) for label, _ in rows))
    for label, meaning in rows:
        line = Text.assemble(INDENT, (label, "cyan"))
        if len(line) > indent - len(INDENT):
            console.print(line, soft_wrap=True)
            line = Text()
        for wrapped in meaning.wrap(console, max(NARROWEST, console.width - indent)):
            console.print(Text.assemble(line, " " * (indent - len(line)), wrapped), soft_wrap=True)
            line = Text()
