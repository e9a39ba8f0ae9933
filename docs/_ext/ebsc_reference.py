"""Write the reference pages from the code when the site is built.

A page holds a comment such as ``<!-- generated: settings -->``. The extension replaces the comment by
Markdown. It makes this Markdown from the models of the configuration, from the options of every registered
component, from the help of the command line, or from the public names of a module. The repository keeps
nothing generated.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from sphinx.errors import ExtensionError
from typer.main import get_command

import ebsc_cli
import ebsc_core
from ebsc_cli.app import app as command_line
from ebsc_core.config.schema import RunConfig
from ebsc_core.data.views.options import ViewOptions
from ebsc_core.plugins.hookspecs import ComponentFamily, ComponentSpec
from ebsc_core.plugins.installed import OWN_DISTRIBUTION
from ebsc_core.plugins.kinds import Kind
from ebsc_core.plugins.registry import Entry, Registry

# Import everything before autodoc does: it sets TYPE_CHECKING, and pydantic's models do not stand that.
for package in (ebsc_core, ebsc_cli):
    for found in walk_packages(package.__path__, f"{package.__name__}."):
        if not found.name.endswith("__main__"):
            import_module(found.name)

MARKER = re.compile(r"^<!-- generated: (\S+) -->$", re.MULTILINE)
LINK = re.compile(r"\]\((\.\.?/[^)#]*)(#[^)]*)?\)")
DOCS = Path(__file__).resolve().parents[1]
RESULTS = DOCS.parent / "benchmarks" / "results"
# Attributes that scikit-learn and pydantic add to classes of ours.
INHERITED = (
    "model_config",
    "set_fit_request",
    "set_predict_request",
    "set_score_request",
    "set_transform_request",
)


def setup(app: Any) -> dict[str, Any]:
    """Register the replacement with Sphinx."""
    app.connect("source-read", _replace)
    app.connect("autodoc-process-docstring", _escape, priority=900)
    return {"parallel_read_safe": True, "version": ebsc_core.__version__}


def _replace(app: Any, page: str, source: list[str]) -> None:
    text = MARKER.sub(lambda match: GENERATORS[match[1]](), source[0])
    source[0] = LINK.sub(lambda match: _link(page, match), text)


def _link(page: str, match: re.Match[str]) -> str:
    """Turn a link that leaves ``docs/`` into one to the page of tables, or to a file to download."""
    target, anchor = match[1], match[2] or ""
    path = ((DOCS / page).parent / target).resolve()
    if DOCS in path.parents:
        return match[0]
    if path.parent.parent == RESULTS and path.name == "table.md":
        return f"](/reference/tables.md#{path.parent.name})"
    if not path.is_file():
        raise ExtensionError(f"{page}: the link to {target}{anchor} leads nowhere")
    return f"](path:{target})"


def tables() -> str:
    """Return the table of every suite that was run, as ``ebsc benchmark`` wrote it."""
    return "\n".join(_table(path) for path in sorted(RESULTS.glob("*/table.md")))


def _table(path: Path) -> str:
    head, *rest = path.read_text(encoding="utf-8").split("\n")
    lines, inside = [f"## {path.parent.name}", "", f"**{head.lstrip('# ')}**"], False
    for line in rest:
        inside ^= line.startswith("```")
        lines.append(f"#{line}" if line.startswith("#") and not inside else line)
    return "\n".join(lines)


def _escape(app: Any, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Keep the names of scikit-learn's fitted attributes from being read as links: ``n_features_in_``."""
    lines[:] = [re.sub(r"(?<=\w)_(?=[,)])", r"\_", line) if ":type" in line else line for line in lines]


def settings() -> str:
    """Every setting of a run: a section for each table of the configuration."""
    fields = RunConfig.model_fields
    tables = {name: model for name, field in fields.items() if (model := _model(field.annotation))}
    plain = {name: field for name, field in fields.items() if name not in tables}
    lines = ["## The run itself", "", *_rows(plain.items())]
    for name, model in tables.items():
        lines += ["", f"## `[{name}]`", ""]
        if model.__module__ == RunConfig.__module__ and not _inherited(model):
            lines += [_markdown(inspect.getdoc(model) or ""), ""]
        if fields[name].description:
            lines += [_markdown(fields[name].description or ""), ""]
        lines += _rows(model.model_fields.items(), prefix=f"{name}.")
    lines += ["", "## `[views]`", "", _markdown(inspect.getdoc(ViewOptions) or ""), ""]
    lines += ["A missing default depends on the images: their colour and size.", ""]
    rows = _rows(ViewOptions.model_fields.items(), prefix="views.")
    return "\n".join(lines + [row.replace("| required |", "| |") for row in rows])


def components() -> str:
    """Every component that comes with ebsc, with its options."""
    registry = Registry()
    lines: list[str] = []
    for kind in Kind:
        lines += [f"## {kind.words.capitalize()}s", ""]
        for entry in registry.of(kind):
            if entry.provider.distribution == OWN_DISTRIBUTION:
                lines += [*_component(registry, entry), ""]
    return "\n".join(lines)


def _component(registry: Registry, entry: Entry) -> Iterator[str]:
    component, kind = entry.component, entry.kind
    family = isinstance(component, ComponentFamily)
    yield f"### {entry.name}{' (family)' if family else ''}"
    yield ""
    default = " This is the default." if isinstance(component, ComponentSpec) and component.default else ""
    yield f"{_markdown(_sentence(component.summary))}{default}"
    yield ""
    if component.reference:
        yield f"Source: {_markdown(component.reference)}."
        yield ""
    options = registry.options_of(entry)
    if options is None:
        yield "`ebsc plugins show NAME` prints the options of a member of this family."
        yield f"Set one by `--set {kind.section}.OPTION=VALUE`."
        return
    fields = options.model_fields
    if not fields:
        yield "It has no options."
        return
    yield from _rows(fields.items(), prefix=f"{kind.settings(entry.name)}.")


def commands() -> str:
    """Every command with its arguments and options."""
    return "\n".join(_command(get_command(command_line), "ebsc"))


def _command(command: Any, path: str) -> Iterator[str]:
    yield f"## `{path}`"
    yield ""
    yield _markdown(inspect.cleandoc(command.help or ""))
    yield ""
    if command.epilog:  # an example
        yield from ("```sh", command.epilog, "```", "")
    shown = [option for option in command.params if option.name not in ("help",)]
    for title, kind in (("argument", "argument"), ("option", "option")):
        rows = [option for option in shown if option.param_type_name == kind]
        if rows:
            yield f"| {title} | default | meaning |"
            yield "|---|---|---|"
            yield from (_parameter(option) for option in rows)
            yield ""
    for name, child in getattr(command, "commands", {}).items():
        yield from _command(child, f"{path} {name}")


def _parameter(option: Any) -> str:
    help_text = option.help or ""
    default = ""
    if match := re.search(r"\s*\\?\[default: (.*?)\]", help_text):
        default, help_text = match[1], help_text.replace(match[0], "")
    elif option.required:
        default = "required"
    elif option.default not in (None, False, ()) and not callable(option.default):
        default = str(option.default)
    if option.param_type_name == "argument":
        name = option.metavar or option.name.upper()
    else:
        names = [*option.opts, *option.secondary_opts]
        value = "" if option.is_flag else f" {option.metavar or 'VALUE'}"
        name = ", ".join(names) + value
    return _row(f"`{_cell(name)}`", _cell(default), _markdown(help_text))


def names_of(module: str) -> Callable[[], str]:
    """Documentation of all public names of a module, in the order of ``__all__``."""

    def generate() -> str:
        lines = ["```{eval-rst}"]
        for name in import_module(module).__all__:
            found = getattr(import_module(module), name)
            directive = (
                "class" if inspect.isclass(found) else "function" if inspect.isroutine(found) else "data"
            )
            lines += [f".. auto{directive}:: {module}.{name}"]
            if directive == "class":
                lines += ["   :members:", f"   :exclude-members: {', '.join(INHERITED)}"]
            lines += [""]
        return "\n".join([*lines, "```"])

    return generate


def _rows(fields: Iterable[tuple[str, FieldInfo]], prefix: str = "") -> list[str]:
    """Return a Markdown table of settings; it is empty if there are none."""
    rows = [_setting(prefix + name, field) for name, field in fields]
    return ["| setting | type | default | meaning |", "|---|---|---|---|", *rows] if rows else []


def _setting(name: str, field: FieldInfo) -> str:
    default = (
        "required"
        if field.is_required()
        else "`" + _value(field.get_default(call_default_factory=True)) + "`"
    )
    kind = _type(field.annotation)
    limits = _limits(field)
    return _row(f"`{name}`", f"{kind}{limits}", _cell(default), _markdown(field.description or ""))


def _value(default: Any) -> str:
    return (
        {True: "true", False: "false"}[default]
        if isinstance(default, bool)
        else "not set"
        if default is None
        else str(default)
    )


def _limits(field: FieldInfo) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    found = [
        f"{sign} {_short(getattr(limit, name))}"
        for limit in field.metadata
        for name, sign in signs.items()
        if getattr(limit, name, None) is not None
    ]
    return f" ({', '.join(found)})" if found else ""


def _short(number: float) -> str:
    return "2³²" if number == 2**32 else f"{number:g}"


def _type(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _type(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(one) for one in typing.get_args(annotation) if one is not type(None))
    if origin is typing.Literal:
        return " or ".join(f"`{_value(one)}`" for one in typing.get_args(annotation))
    names = {int: "whole number", float: "number", str: "text", bool: "`true` or `false`", Any: "any"}
    if annotation in names:
        return names[annotation]
    if origin in (list, tuple):
        return "list"
    return "table" if origin is dict else _cell(getattr(annotation, "__name__", str(annotation)))


def _model(annotation: Any) -> type[BaseModel] | None:
    """Return the model that a field holds, if it holds one."""
    found = [one for one in (annotation, *typing.get_args(annotation)) if inspect.isclass(one)]
    return next((one for one in found if issubclass(one, BaseModel)), None)


def _inherited(model: type) -> bool:
    """Return whether several sections share this model, so that its text describes none of them."""
    return sum(_model(field.annotation) is model for field in RunConfig.model_fields.values()) > 1


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _markdown(text: str) -> str:
    """Turn a docstring, in reStructuredText or Rich markup, into Markdown on one line for each paragraph."""
    text = (
        re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text)
        .replace("``", "`")
        .replace("\\[", "[")
        .replace("::\n", ":\n")
    )
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip())]
    return _cell("\n\n".join(paragraphs))


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("\n\n", " ") for cell in cells) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


GENERATORS: dict[str, Callable[[], str]] = {
    "settings": settings,
    "components": components,
    "commands": commands,
    "tables": tables,
    "ebsc_core": names_of("ebsc_core"),
    "ebsc_core.testing": names_of("ebsc_core.testing"),
}
