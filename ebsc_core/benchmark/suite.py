"""Read a suite: a TOML file that says which settings are compared on which data.

::

    title = "Coefficient models on identical features"
    seeds = [0, 1, 2]
    baseline = "knn"

    [settings]                      # for every run, as in a run's own TOML file
    train.epochs = 0
    backbone.name = "pca"

    [data.orl]                      # one column of the table
    data.name = "$EBSC_DATA_DIR/orl.npz"

    [rows.knn]                      # one row of the table
    coefficients.name = "knn"

    [rows."energy, 10 per row"]
    coefficients.name = "energy"
    top_k = 10

The settings of a column override those of every run, those of a row override both, and those of the command
line override all. A suite may have columns of images and columns of features. Settings that say nothing on
one kind are left out there, and :meth:`Suite.notes` names them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ebsc_core.config.loading import checked, flattened, overlay, parse_settings
from ebsc_core.config.messages import describe
from ebsc_core.config.schema import OF_IMAGES, PROVENANCE, RunConfig
from ebsc_core.config.toml import read_toml
from ebsc_core.data.views.options import GRAY_VIEWS, ViewOptions
from ebsc_core.plugins.registry import Registry
from ebsc_core.runs.plan import make_plan
from ebsc_core.utils.device import resolve_device
from ebsc_core.utils.errors import ConfigError, EbscError
from ebsc_core.utils.hashing import digest

# These settings act after the features: cells that differ only here share their features.
DOWNSTREAM = {"coefficients", "clusterer", "refine", "affinity", "whiten", "top_k", "n_clusters", "search"}
DOWNSTREAM |= {"dictionary_size", "like", "out", "cache", "observers"}
# In these settings environment variables are filled in.
PATHS = ("data.name", "data.root", "features.path")
# These settings are the same for all cells, or differ in a way that a table could not show. Their place is:
# `protocol` of a suite has no backticks: there it is a key of the file, not the setting of a run.
OF_THE_SUITE = {"seed": "`seeds` of the suite", "protocol": "'protocol' of the suite"}
OF_THE_SUITE |= {"out": "`out` of the benchmark", "cache": "`cache` of the benchmark"}


class Published(BaseModel):
    """Describe a figure from the literature, shown beside ours together with its protocol."""

    model_config = ConfigDict(extra="forbid")

    row: str
    data: str
    acc: float | None = None
    nmi: float | None = None
    ari: float | None = None
    protocol: str
    source: str


def _baseline(value: Any) -> Any:
    rows = value.values() if isinstance(value, dict) else [] if value is None else [value]
    if not all(isinstance(row, str) for row in rows):
        raise ValueError("input should be the name of a row, or a table that names one for each row")
    return value


class SuiteFile(BaseModel):
    """Define the content of a suite's TOML file."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    title: str
    about: str = ""
    """A paragraph for the reader of the table, in Markdown."""
    protocol: Literal["all", "train-test"] = "all"
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field([0, 1, 2], min_length=1)
    baseline: Annotated[str | dict[str, str] | None, BeforeValidator(_baseline)] = None
    """The row that the others are compared with. If they have different ones, it is a table, ``[baseline]``,
    with a line ``"row" = "its baseline"`` for each row that has one."""
    settings: dict[str, Any] = Field(default_factory=dict)
    data: dict[str, dict[str, Any]] = Field(min_length=1)
    rows: dict[str, dict[str, Any]] = Field(min_length=1)
    published: list[Published] = Field(default_factory=list)

    def baseline_of(self, row: str) -> str | None:
        """Return the row that this one is compared with; None without one, and for the baseline itself."""
        found = self.baseline.get(row) if isinstance(self.baseline, dict) else self.baseline
        return None if found == row else found


@dataclass(frozen=True)
class Cell:
    """Describe one run of a suite."""

    row: str
    column: str
    seed: int
    settings: dict[str, Any]
    """The settings as written, with the names of environment variables in paths."""

    @property
    def name(self) -> str:
        return f"{self.row} · {self.column} · seed {self.seed}"

    @cached_property
    def config(self) -> RunConfig:
        """The run's configuration, with environment variables filled in.

        Raises
        ------
        ConfigError
            If a setting is unknown or has the wrong type, or if a path names an environment variable that
            is not set.
        """
        tree = overlay(self.settings, {})
        for setting in PATHS:
            section, _, option = setting.partition(".")
            table = tree.get(section)
            if isinstance(table, dict) and isinstance(table.get(option), str):
                table[option] = _expanded(setting, table[option])
        return checked(tree)

    @property
    def given(self) -> dict[str, Any]:
        """What is given of the settings whose default a component decides: a given default is not open."""
        decided: Any = {"refine": True, "affinity": True, "train": {"epochs"}}
        return self.config.model_dump(mode="json", include=decided, exclude_unset=True)

    @cached_property
    def features_key(self) -> str:
        """A key that is equal for cells that can share their features."""
        values = self.config.model_dump(mode="json", exclude=DOWNSTREAM)
        return digest(values | {"given": self.given.get("train", {})})


@dataclass(frozen=True)
class Suite:
    """Hold a suite and the changes from the command line."""

    path: Path
    file: SuiteFile
    changes: dict[str, Any]

    @property
    def name(self) -> str:
        return self.path.stem

    def cells(self) -> list[Cell]:
        """Return all runs, seed by seed, so that a first complete table is available early."""
        return [
            Cell(row, column, seed, self._settings(row, column, seed))
            for seed in self.file.seeds
            for column in self.file.data
            for row in self.file.rows
        ]

    def _settings(self, row: str, column: str, seed: int) -> dict[str, Any]:
        own = {"seed": seed} | ({} if self.file.protocol == "all" else {"protocol": self.file.protocol})
        tree = self._given(row, column)
        left_out = self._left_out(tree, column)
        return overlay({key: value for key, value in tree.items() if key not in left_out}, own)

    def _given(self, row: str, column: str) -> dict[str, Any]:
        """Merge the settings of a row on a data set, whether or not they say anything there."""
        tree: dict[str, Any] = {}
        for layer in (self.file.settings, self.file.data[column], self.file.rows[row], self.changes):
            tree = overlay(tree, layer)
        return tree

    @cached_property
    def _on_features(self) -> dict[str, bool]:
        """Whether each data set holds features, not images."""
        trees = {
            name: overlay(overlay(self.file.settings, table), self.changes)
            for name, table in self.file.data.items()
        }
        return {
            name: isinstance(tree.get("features"), dict) and "path" in tree["features"]
            for name, tree in trees.items()
        }

    def _left_out(self, tree: Mapping[str, Any], column: str) -> set[str]:
        """Return the sections that say nothing on this data set, but do on data sets of the other kind.

        What the table of the data set itself sets stays, and is a mistake.
        """
        if len(set(self._on_features.values())) == 1:
            return set()
        useless = OF_IMAGES - {"protocol"} if self._on_features[column] else {"features"}
        return {key for key in tree if key in useless and key not in self.file.data[column]}

    def notes(self) -> list[str]:
        """Say for each data set, in a line, which settings are left out, and which rows are then the same."""
        return [note for column in self.file.data if (note := self.note(column))]

    def note(self, column: str) -> str | None:
        """Say which settings are left out on a data set, and which rows are then the same; None without."""
        names: set[str] = set()
        rows: dict[str, list[str]] = {}
        for row in self.file.rows:
            tree = self._given(row, column)
            left_out = self._left_out(tree, column)
            names |= {name for key in left_out for name, _ in flattened({key: tree[key]})}
            rows.setdefault(repr(sorted(flattened(self._settings(row, column, 0)))), []).append(repr(row))
        if not names:
            return None
        holds, other = ("features", "images") if self._on_features[column] else ("images", "features")
        same = [" and ".join(equal) for equal in rows.values() if len(equal) > 1]
        return (
            f"data set {column!r} holds {holds}: settings of {other} say nothing there and are left out "
            f"({', '.join(sorted(names))})"
            + "".join(f"; rows {equal} are the same run there" for equal in same)
        )

    def check(self, registry: Registry) -> None:
        """Find every component of every cell and check its options, before anything runs.

        Raises
        ------
        ConfigError
            For the first mistake, with the file and, if possible, the line.
        """
        seed = self.file.seeds[0]
        for column in self.file.data:
            for row in self.file.rows:
                try:
                    _check_cell(Cell(row, column, seed, self._settings(row, column, seed)), registry)
                except EbscError as error:
                    where = self._where(row, column, str(error))
                    raise ConfigError(f"{where}: row {row!r}: {error}") from None

    def _where(self, row: str, column: str, message: str) -> str:
        """Return the place that an error message refers to: ``suite.toml:12`` or ``--set``.

        It is the first line in the tables of the cell that contains the first word quoted in the message,
        or the first setting named in it.
        """
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        changes = [f"{name} = {value!r}" for name, value in flattened(self.changes)]
        for quoted, named in re.findall(r"'([^']+)'|\b([a-z_]+\.[a-z_.]+)\b", message):
            word = re.compile(rf"(?<![\w-]){re.escape(quoted or named)}(?![\w-])")
            if any(word.search(change) for change in changes):
                return "`settings`"
            for table in (f"rows.{row}", f"data.{column}", "settings"):
                for number, line in _table_lines(lines, table):
                    if word.search(line):
                        return f"{self.path}:{number}"
        return str(self.path)


def _expanded(setting: str, path: str) -> str:
    """Fill environment variables into ``path``."""
    expanded = os.path.expandvars(path)
    missing = re.search(r"\$(\w+|\{[^}]*\})", expanded, re.ASCII)
    if missing and not Path(expanded).exists():
        raise ConfigError(f"option {setting!r}: the environment variable {missing[0]} is not set")
    return expanded


def _check_cell(cell: Cell, registry: Registry) -> None:
    """Check everything about a run that can be known before its data are read."""
    config = cell.config
    make_plan(config, registry)
    resolve_device(config.device)
    try:
        ViewOptions.model_validate(GRAY_VIEWS.model_dump() | config.views)
    except ValidationError as error:
        raise ConfigError(describe(error, ViewOptions, "views")) from None


def _table_lines(lines: list[str], table: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a TOML table with their numbers from 1; settings are named relative to it."""
    header = ""
    for number, line in enumerate(lines, 1):
        code = re.sub(r"(^|\s)#.*", "", line)
        if code.strip().startswith("[") and code.strip().endswith("]"):
            header, code = code.strip().strip("[]") + ".", ""
        key, equals, value = code.partition("=")
        path = ".".join(part.strip() for part in re.sub("[\"']", "", header + key).split("."))
        if path.startswith(table + ".") or (path == table and equals):
            yield number, path[len(table) + 1 :] + equals + value


def load_suite(path: Path, settings: Iterable[str] = (), baseline: str | None = None) -> Suite:
    """Read a suite, and the changes that the command line makes to all of its cells.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not valid TOML, or is not a valid suite.
    """
    tree = read_toml(path, errors="strict")  # the table shows its texts
    tree.pop(PROVENANCE, None)
    try:
        file = SuiteFile.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe(error, SuiteFile, '')}") from None
    if baseline is not None:
        file = file.model_copy(update={"baseline": baseline})
    changes = parse_settings(settings)
    _check_names(path, file)
    _check_own(path, file, changes)
    return Suite(path, file, changes)


def _check_own(path: Path, file: SuiteFile, changes: Mapping[str, Any]) -> None:
    """Reject settings that the suite would override silently, or that would make the table misleading."""
    tables = {f"{path}: [settings]": file.settings, "`settings`": changes}
    tables |= {f"{path}: [data.{name}]": table for name, table in file.data.items()}
    tables |= {f"{path}: [rows.{name}]": table for name, table in file.rows.items()}
    for where, table in tables.items():
        if own := [name for name in OF_THE_SUITE if name in table]:
            raise ConfigError(f"{where} cannot set {own[0]!r}; use {OF_THE_SUITE[own[0]]}")


def _rows_in(baseline: str | dict[str, str] | None) -> list[str]:
    if isinstance(baseline, dict):
        return [*baseline, *baseline.values()]
    return [] if baseline is None else [baseline]


def _check_names(path: Path, file: SuiteFile) -> None:
    rows, columns = list(file.rows), list(file.data)
    if not all(name.strip() for name in (*rows, *columns)):
        raise ConfigError(f"{path}: a row or data set has an empty name")
    for name in _rows_in(file.baseline):
        if name not in rows:
            raise ConfigError(f"{path}: baseline {name!r} is no row; rows are {', '.join(rows)}")
    if isinstance(file.baseline, dict) and (own := [a for a, b in file.baseline.items() if a == b]):
        raise ConfigError(f"{path}: row {own[0]!r} is its own baseline; leave it out")
    if len(set(file.seeds)) < len(file.seeds):
        raise ConfigError(f"{path}: seeds {file.seeds} name one twice, which would count it twice")
    for figure in file.published:
        if figure.data not in columns:
            raise ConfigError(
                f"{path}: published row {figure.row!r} is on {figure.data!r}, which is no data set"
            )
        if figure.row in rows:
            raise ConfigError(f"{path}: published row {figure.row!r} has the name of a row that is run")
