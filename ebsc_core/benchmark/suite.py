"""A suite: which settings are compared on which data, written down in a TOML file.

::

    title = "Coefficient models on identical features"
    seeds = [0, 1, 2]
    baseline = "knn"

    [settings]                      # of every run: what a run's own TOML file takes
    train.epochs = 0
    backbone.name = "pca"

    [data.orl]                      # one column of the table
    data.name = "$EBSC_DATA_DIR/orl.npz"

    [rows.knn]                      # one row of the table
    coefficients.name = "knn"

    [rows."energy, 10 per row"]
    coefficients.name = "energy"
    top_k = 10

A column's settings win over those of every run, a row's over both, the command line's over all.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ebsc_core.config import PROVENANCE, RunConfig, describe, overlay, parse_settings
from ebsc_core.errors import ConfigError, EbscError
from ebsc_core.features import digest
from ebsc_core.plan import make_plan
from ebsc_core.registry import Registry

# What comes after the features: cells that differ only here share them.
DOWNSTREAM = {"coefficients", "clusterer", "refine", "affinity", "top_k", "n_clusters", "out", "cache"}


class Published(BaseModel):
    """A figure of the literature, shown beside ours with the protocol it was found by."""

    model_config = ConfigDict(extra="forbid")

    row: str
    data: str
    acc: float | None = None
    nmi: float | None = None
    ari: float | None = None
    protocol: str
    source: str


class SuiteFile(BaseModel):
    """What a suite's TOML file may hold."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    title: str
    about: str = ""
    """A paragraph for the reader of the table, in Markdown."""
    protocol: Literal["all", "train-test"] = "all"
    seeds: list[int] = Field([0, 1, 2], min_length=1)
    baseline: str | None = None
    """The row that the others' gain is counted from."""
    settings: dict[str, Any] = Field(default_factory=dict)
    data: dict[str, dict[str, Any]] = Field(min_length=1)
    rows: dict[str, dict[str, Any]] = Field(min_length=1)
    published: list[Published] = Field(default_factory=list)


@dataclass(frozen=True)
class Cell:
    """One run of a suite."""

    row: str
    column: str
    seed: int
    settings: dict[str, Any]
    """As written, with the names of environment variables in paths."""

    @property
    def name(self) -> str:
        return f"{self.row} · {self.column} · seed {self.seed}"

    @cached_property
    def config(self) -> RunConfig:
        """The run's configuration, environment variables filled in.

        Raises
        ------
        ConfigError
            If a setting is unknown or ill-typed.
        """
        tree = overlay(self.settings, {})
        data = tree.get("data")
        for path in ("name", "root"):
            if isinstance(data, dict) and isinstance(data.get(path), str):
                data[path] = os.path.expandvars(data[path])
        try:
            return RunConfig.model_validate(tree)
        except ValidationError as error:
            raise ConfigError(describe(error, RunConfig, "")) from None

    def features_key(self) -> str:
        """Equal for cells that can share their features."""
        return digest(self.config.model_dump(mode="json", exclude=DOWNSTREAM))


@dataclass(frozen=True)
class Suite:
    """A suite as read, with what the command line changed."""

    path: Path
    file: SuiteFile
    changes: dict[str, Any]

    @property
    def name(self) -> str:
        return self.path.stem

    def cells(self) -> list[Cell]:
        """All runs: seed by seed, so that a first full table is there early."""
        return [
            Cell(row, column, seed, self._settings(row, column, seed))
            for seed in self.file.seeds
            for column in self.file.data
            for row in self.file.rows
        ]

    def _settings(self, row: str, column: str, seed: int) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        own = {"seed": seed} | ({} if self.file.protocol == "all" else {"protocol": self.file.protocol})
        for layer in (self.file.settings, self.file.data[column], self.file.rows[row], self.changes, own):
            tree = overlay(tree, layer)
        return tree

    def check(self, registry: Registry) -> None:
        """Find every part of every cell and check its options, before anything runs.

        Raises
        ------
        ConfigError
            For the first mistake, with the file and, where it can be told, the line.
        """
        for cell in self.cells()[: len(self.file.data) * len(self.file.rows)]:
            try:
                make_plan(cell.config, registry)
            except EbscError as error:
                line = self._line(cell, str(error))
                raise ConfigError(f"{self.path}{line}: row {cell.row!r}: {error}") from None

    def _line(self, cell: Cell, message: str) -> str:
        """``:12``, the first line of the cell's tables that holds what the message quotes."""
        quoted = [word.split(".")[-1] for word in re.findall(r"'([^']+)'", message)]
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        for header in (f"rows.{cell.row}", f"data.{cell.column}", "settings"):
            for number in _table_lines(lines, header):
                if any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", lines[number]) for word in quoted):
                    return f":{number + 1}"
        return ""


def _table_lines(lines: list[str], header: str) -> Iterable[int]:
    """Positions of the lines of the TOML table ``header``, sub-tables included."""
    inside = False
    for number, line in enumerate(lines):
        if found := re.match(r"\s*\[+(.+?)\]+\s*(#.*)?$", line):
            name = re.sub(r"[\"']", "", found[1]).replace(" . ", ".")
            inside = name == header or name.startswith(header + ".")
        if inside:
            yield number


def load_suite(path: Path, settings: Iterable[str] = (), baseline: str | None = None) -> Suite:
    """Read a suite and what the command line changes in all of its cells.

    Raises
    ------
    ConfigError
        If the file cannot be read, is no TOML, or is no suite.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    tree.pop(PROVENANCE, None)
    try:
        file = SuiteFile.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe(error, SuiteFile, '')}") from None
    if baseline is not None:
        file = file.model_copy(update={"baseline": baseline})
    _check_names(path, file)
    return Suite(path, file, parse_settings(settings))


def _check_names(path: Path, file: SuiteFile) -> None:
    rows, columns = list(file.rows), list(file.data)
    if file.baseline is not None and file.baseline not in rows:
        raise ConfigError(f"{path}: baseline {file.baseline!r} is no row; rows are {', '.join(rows)}")
    if len(set(file.seeds)) < len(file.seeds):
        raise ConfigError(f"{path}: seeds {file.seeds} name one twice, which would count it twice")
    for figure in file.published:
        if figure.data not in columns:
            raise ConfigError(
                f"{path}: published row {figure.row!r} is on {figure.data!r}, which is no data set"
            )
        if figure.row in rows:
            raise ConfigError(f"{path}: published row {figure.row!r} has the name of a row that is run")
