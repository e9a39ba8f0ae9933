"""Build a checked configuration from TOML files and settings, and write it back as TOML."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from ebsc_core.config.flags import FLAGS
from ebsc_core.config.messages import describe, field_names
from ebsc_core.config.schema import COMPONENT_SECTIONS, OWN_RATES, PROVENANCE, RunConfig, TrainOptions
from ebsc_core.config.toml import MAX_DEPTH, parse_toml, read_toml
from ebsc_core.utils.errors import ConfigError, shortened

# What a recorded run has resolved for a component. Another component has other preferences.
RESOLVED_FOR = {
    "coefficients": ("refine", "affinity", "top_k", "whiten"),
    "objective": ("express",),
}
# The options with which a backbone starts from trained weights, which train for 0 epochs by default.
TRAINED_BY = ("pretrained", "weights")
# Settings that are gone, and the values with which they changed nothing.
FORMER = {"joint": {"memory": 0}}


def load_config(
    file: Path | None = None,
    settings: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
    sections: Collection[str] | None = None,
) -> RunConfig:
    """Merge a TOML file with ``section.option=value`` settings and dotted flags, which win over the file.

    If a setting or flag names another component than the file does, the file's options for the old
    component are dropped. If the file was written by a run, so is what the run has resolved for it.

    Parameters
    ----------
    sections : collection of str, optional
        The sections, and settings outside sections, that settings and flags may set; by default all.

    Raises
    ------
    ConfigError
        If the file is unreadable, a setting is malformed, a setting and a flag contradict each other, a name
        is unknown or a value has the wrong type. The message names the setting and the nearest known one.
    """
    tree = read_toml(file) if file else {}
    recorded = tree.pop(PROVENANCE, None) is not None
    if recorded:
        _drop_former(tree)
    given = parse_settings(settings)
    settled = dict(flattened(given))
    for key, value in (flags or {}).items():
        if value is None:
            continue
        if key in settled and str(settled[key]) != str(value):  # a flag may hold a number as text
            flag = f"{key}={shortened(str(value))}"
            flag = f"`{flag}`" if key in FLAGS else flag  # others are arguments
            setting = f"`settings={key}={shortened(str(settled[key]))}`"
            raise ConfigError(f"{flag} and {setting} contradict each other; leave one of them out")
        _put(given, key, value)
    if sections is not None:
        check_sections(given, sections)
    if recorded:
        _drop_resolved(tree, given)
    config = checked(overlay(tree, given))
    if recorded:
        _mark_recorded(config, tree)
    return config


def _drop_former(tree: dict[str, Any]) -> None:
    """Drop settings that are gone from a recorded run for which they changed nothing."""
    for section, settings in FORMER.items():
        table = tree.get(section)
        if isinstance(table, dict):  # what else it is gets its message later
            for name in [name for name, value in settings.items() if table.get(name) == value]:
                del table[name]


def _drop_resolved(tree: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Drop what a recorded run has resolved for components that are replaced."""
    for section, settings in RESOLVED_FOR.items():
        if _replaces(given.get(section), tree.get(section)):
            for setting in settings:
                tree.pop(setting, None)
    train = tree.get("train")
    if isinstance(train, dict):
        _drop_rates(train, given.get("train"))
        _drop_epochs(train, tree.get("backbone"), given.get("backbone"))


def _drop_rates(train: dict[str, Any], given: Any) -> None:
    """Drop the rates of a recorded run if another optimiser is given, which has its own."""
    default = TrainOptions.model_fields["optimizer"].default  # files of older versions name none
    former = train.get("optimizer", default)
    if isinstance(given, Mapping) and given.get("optimizer", former) != former:
        for rate in next(iter(OWN_RATES.values())):
            train.pop(rate, None)


def _drop_epochs(train: dict[str, Any], below: Any, over: Any) -> None:
    """Drop the epochs of a recorded run if the given backbone has another default number of them."""
    if not isinstance(over, Mapping):
        return
    below = below if isinstance(below, Mapping) else {}
    replaced = _replaces(over, below)
    former = [below.get(option) or None for option in TRAINED_BY]
    now = [over.get(option, None if replaced else below.get(option)) or None for option in TRAINED_BY]
    # 0 epochs are those of weights that stay as they are, or of a backbone that has nothing to train.
    if train.get("epochs") == 0 and (replaced or now != former):
        del train["epochs"]
    if any(now) and not any(former):  # the epochs were for a start from scratch
        train.pop("epochs", None)


def _replaces(over: Any, below: Any) -> bool:
    """Return whether one table of a component names another component than the other table."""
    names = [table.get("name") if isinstance(table, Mapping) else None for table in (over, below)]
    return None not in names and names[0] != names[1]


def _mark_recorded(config: RunConfig, tree: Mapping[str, Any]) -> None:
    """Mark the sections of a recorded run that still name its components."""
    for section in COMPONENT_SECTIONS:
        choice = getattr(config, section)
        if section in tree and tree[section].get("name") == choice.name:
            choice.mark_recorded()


def checked(tree: Mapping[str, Any]) -> RunConfig:
    """Validate tables and return the configuration.

    Raises
    ------
    ConfigError
        If a name is unknown or a value has the wrong type.
    """
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(describe(error, RunConfig, "")) from None


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Parse ``section.option=value`` words into a tree of tables.

    Values are written as in TOML; a bare word is text.

    Raises
    ------
    ConfigError
        If a word does not have that form, or sets a section as if it were an option.
    """
    tree: dict[str, Any] = {}
    for setting in settings:
        _put(tree, *_parse_setting(setting))
    return tree


def check_sections(tree: Mapping[str, Any], sections: Collection[str]) -> None:
    """Raise a ConfigError unless a tree of settings sets options of these sections, and nothing else.

    A setting outside all sections, such as ``seed``, may be among them.
    """
    tables = [one for one in sections if own_settings(one)]
    single = [one for one in sections if one not in tables]
    for setting, value in flattened(tree):
        section, dot, _ = setting.partition(".")
        if section not in sections:
            known = " and ".join(f"{one}." for one in tables)
            others = f"; others are {', '.join(single)}" if single else ""
            raise ConfigError(
                f"{shortened(setting)!r} says nothing here, leave it out: options here begin with {known}"
                f"{others}"
            )
        if section in tables and not (dot or value == {}):
            raise ConfigError(f"{section!r} is a section, not an option: set what is in it")


def overlay(tree: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``tree`` updated with the settings of ``over``, table by table.

    If ``over`` names another component, the options of the component in ``tree`` are dropped, because the
    new component has other options.

    Raises
    ------
    ConfigError
        If one tree holds a table where the other holds a value.
    """
    merged = {key: dict(value) if isinstance(value, Mapping) else value for key, value in tree.items()}
    for key, value in over.items():
        if not isinstance(value, Mapping):
            merged[key] = value
            continue
        below = merged.get(key, {})
        if not isinstance(below, Mapping):
            setting = ".".join([key, *list(value)[:1]])
            raise ConfigError(f"cannot set {setting!r}: {key!r} is given as a single value, not as a section")
        if key in COMPONENT_SECTIONS and _replaces(value, below):
            below = {name: entry for name, entry in below.items() if name in own_settings(key)}
        merged[key] = overlay(below, value)
    return merged


def own_settings(section: str) -> list[str]:
    """Return the settings of a component's section that do not depend on the component."""
    return field_names(RunConfig, [section]) if section in RunConfig.model_fields else []


def _parse_setting(setting: str) -> tuple[str, Any]:
    key, equals, text = setting.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise ConfigError(f"`settings` {shortened(setting)!r} is not of the form section.option=value")
    try:
        value = parse_toml(f"value = {text}")["value"]
    except ValueError:
        value = text  # a bare word is a string
    return key.strip(), value


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    if len(path) >= MAX_DEPTH:
        raise ConfigError(f"{shortened(key)!r} is no setting: no section lies so deep")
    for part in path:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise ConfigError(
                f"cannot set {shortened(key)!r}: {shortened(part)!r} is given as a single value, not as a "
                "section"
            )
    tree[last] = value


def write_toml(path: Path, tables: Mapping[str, Any]) -> None:
    """Write tables as TOML; paths that are not UTF-8 keep their bytes."""
    text = tomli_w.dumps(without_none(dict(tables)))
    path.write_text(text, encoding="utf-8", errors="surrogateescape")


def without_none(value: Any) -> Any:
    """Remove entries that are None, which TOML cannot hold."""
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_none(item) for item in value]
    return value


def flattened(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings of a tree of tables with dotted names; an empty table counts as a setting."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
