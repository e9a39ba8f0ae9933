"""The pluggy hooks: how parts make themselves known.

A plugin is any object with ``@hookimpl`` functions, named under the entry-point group ``ebsc``::

    # pyproject.toml
    [project.entry-points.ebsc]
    my-package = "my_package.plugin"

    # my_package/plugin.py
    from ebsc_core import ComponentSpec, hookimpl

    @hookimpl
    def ebsc_objectives():
        yield ComponentSpec("my-loss", "What it is, in a line.", "my_package.loss:MyLoss")

Hooks yield light records and import nothing heavy: ``"my_package.loss:MyLoss"`` is imported when
somebody selects ``my-loss``, not before.

An observer is a part, too (``ebsc_observers``): its factory builds an object with ``@hookimpl`` methods of
:class:`RunHooks`, which are told what becomes of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pluggy

ENTRY_POINT_GROUP = "ebsc"
API_VERSION = 1

hookspec = pluggy.HookspecMarker(ENTRY_POINT_GROUP)
hookimpl = pluggy.HookimplMarker(ENTRY_POINT_GROUP)


@dataclass(frozen=True)
class ComponentSpec:
    """One part, as a hook yields it."""

    name: str
    """What the user types, e.g. ``simclr``: lower case, words joined by hyphens."""
    summary: str
    """One line for ``ebsc plugins list``."""
    factory: str | Callable[..., Any]
    """Builds the part; an import string ``"package.module:attribute"`` is resolved on first use.
    How it is called is in :mod:`ebsc_core.plugins.interfaces`."""
    options: str | type | None = None
    """The part's :class:`ebsc_core.Options` class; by default the factory's own ``Options``."""
    reference: str = ""
    """Paper or source, e.g. ``arXiv:2002.05709``."""
    default: bool = False
    """Whether a run that names no part of this kind uses this one."""
    api_version: int = API_VERSION
    # Preferences stand here, so that a plain function as factory has them, too.
    top_k: int | None = field(default=None, kw_only=True)
    """How many coefficients of a row a coefficient model keeps unless the run says (``n_nonzero``
    elsewhere); None for the framework's rule, :func:`ebsc_core.clustering.coefficients.auto_top_k`."""
    whiten: bool | None = field(default=None, kw_only=True)
    """Whether a coefficient model has what the rows have in common damped first, unless the run says
    (:class:`ebsc_core.data.features.whitening.Whitening`); None for no."""
    express: Literal["features", "embeddings"] | None = field(default=None, kw_only=True)
    """Which rows express one another after an objective, unless the run says: the embeddings that the loss
    shapes (None is the same), or the features below them where the embeddings keep too little."""


@dataclass(frozen=True)
class ComponentFamily:
    """Many parts under one rule, such as every model of a library or every file of a type."""

    name: str
    """What the family is called in ``ebsc plugins list``, e.g. ``timm``."""
    summary: str
    """One line, saying what names it answers to."""
    resolve: str | Callable[[str], ComponentSpec | None]
    """Maps what the user typed to a part, or None if it is not of this family."""
    names: str | Callable[[], Iterable[str]] = tuple
    """The names it answers to, for suggestions; may be empty."""
    reference: str = ""
    api_version: int = API_VERSION


Component = ComponentSpec | ComponentFamily


class Hooks:
    """Every hook a plugin can implement. All are optional."""

    @hookspec
    def ebsc_datasets(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Data sets and file types images are read from (``--data``)."""

    @hookspec
    def ebsc_backbones(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Networks from images to features (``--backbone``)."""

    @hookspec
    def ebsc_objectives(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Self-supervised objectives (``--objective``)."""

    @hookspec
    def ebsc_coefficient_models(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Models of the self-expressive coefficients (``--coefficients``)."""

    @hookspec
    def ebsc_clusterers(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Clusterers of an affinity or of features (``--clusterer``)."""

    @hookspec
    def ebsc_observers(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Trackers that are told of a run (``--observer``)."""


@dataclass(frozen=True)
class RunStarted:
    """The parts are found and their options checked; nothing is read yet."""

    directory: Path
    """The run directory; what the run leaves is there when it has finished, and only then."""
    config: dict[str, Any]
    """The configuration as plain values, with the name and options of each part."""
    parts: dict[str, str]
    """Distribution and version of each part, by its section of the configuration."""


@dataclass(frozen=True)
class EpochFinished:
    """An epoch of training is over."""

    directory: Path
    phase: str
    """``warm-up`` or ``joint``."""
    epoch: int
    """Counted from 1. Training that goes on from where it was kept starts with a later one."""
    epochs: int
    """How many there are, of both phases."""
    figures: dict[str, float]
    """``loss``, ``effective_rank`` and, in the joint phase, ``joint_error`` (see ``metrics.json``)."""


@dataclass(frozen=True)
class StageFinished:
    """A stage of the run is over."""

    directory: Path
    stage: str
    """As under ``seconds`` of ``metrics.json``, e.g. ``read data``, ``training``, ``figures``."""
    seconds: float


@dataclass(frozen=True)
class RunFinished:
    """The run directory is complete."""

    directory: Path
    metrics: dict[str, Any]
    """The content of ``metrics.json``."""


@dataclass(frozen=True)
class RunFailed:
    """The run has ended early, by an error or by the user; the directory is gone unless it can go on."""

    directory: Path
    error: str
    """Its type and text, e.g. ``DataError: …``."""


class RunHooks:
    """Every hook an observer can implement. All are optional.

    They are called in the process that writes, in the order of what happens. Records are copies: changing
    one changes nothing.
    """

    @hookspec
    def ebsc_run_started(self, event: RunStarted) -> None:
        """First of all, once."""

    @hookspec
    def ebsc_epoch_finished(self, event: EpochFinished) -> None:
        """After each epoch; never if trained features are reused."""

    @hookspec
    def ebsc_stage_finished(self, event: StageFinished) -> None:
        """After each stage."""

    @hookspec
    def ebsc_run_finished(self, event: RunFinished) -> None:
        """Last of all, if the run directory is complete."""

    @hookspec
    def ebsc_run_failed(self, event: RunFailed) -> None:
        """Last of all, if it is not."""
