"""Declare the pluggy hooks through which plugins offer components.

A plugin is any object with ``@hookimpl`` functions. It registers under the entry-point group ``ebsc``::

    # pyproject.toml
    [project.entry-points.ebsc]
    my-package = "my_package.plugin"

    # my_package/plugin.py
    from ebsc_core import ComponentSpec, hookimpl

    @hookimpl
    def ebsc_objectives():
        yield ComponentSpec("my-loss", "One line about it.", "my_package.loss:MyLoss")

Hooks yield light records and import nothing heavy. ``"my_package.loss:MyLoss"`` is imported only when
somebody selects ``my-loss``.

An observer is a component, too (``ebsc_observers``). Its factory builds an object with ``@hookimpl``
methods of :class:`RunHooks`. The run calls these methods to report its progress.
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
class BackboneStart:
    """Hold what the options of a backbone decide before it is built."""

    trained: bool = False
    """Whether it starts from trained weights. A run leaves these as they are unless `train.epochs` is set."""
    side: int | None = None
    """The side, in pixels, at which photos are read for it; None for the framework's own rule."""


@dataclass(frozen=True)
class ComponentSpec:
    """Describe one component, as a hook yields it."""

    name: str
    """The name that the user types, e.g. ``simclr``. It is lower case, with hyphens between words."""
    summary: str
    """One line about the component for ``ebsc plugins list``."""
    factory: str | Callable[..., Any]
    """The function or class that builds the component, or an import string ``"package.module:attribute"``,
    which is imported on first use. :mod:`ebsc_core.plugins.interfaces` lists the arguments of each kind."""
    options: str | type | None = None
    """The component's :class:`ebsc_core.Options` class. None means the attribute ``Options`` of the
    factory."""
    reference: str = ""
    """The paper or other source, e.g. ``arXiv:2002.05709``."""
    default: bool = False
    """Whether a run uses this component if it names none of this kind."""
    api_version: int = API_VERSION
    # Preferences stand here, so that a plain function as factory has them, too.
    top_k: int | None = field(default=None, kw_only=True)
    """How many coefficients of a row a coefficient model keeps unless the run says (``n_nonzero``
    elsewhere); None for the framework's rule, :func:`ebsc_core.clustering.coefficients.auto_top_k`."""
    whiten: Literal[True, False, "neighbors"] | None = field(default=None, kw_only=True)
    """Whether a coefficient model has its rows whitened first, unless the run says: what all rows have in
    common is damped (True, :class:`ebsc_core.data.features.whitening.Whitening`), or also what neighbours
    differ in (:class:`ebsc_core.data.features.neighbor_whitening.NeighborWhitening`, which doubles the width
    of the rows); None for no. In a joint phase of the form ``reconstruction``, whose batches have too few
    rows for neighbours, any whitening is the plain one."""
    express: Literal["features", "embeddings"] | None = field(default=None, kw_only=True)
    """Which rows express one another after an objective, unless the run says: the backbone's features (None
    is the same), or the embeddings that the loss shapes."""
    trainable: bool = field(default=True, kw_only=True)
    """Whether a backbone has parameters that an objective can train. If not, the names of its runs leave the
    objective out."""
    start: str | Callable[[Any], BackboneStart] | None = field(default=None, kw_only=True)
    """A function of a backbone's options, or its import string, that says whether the backbone starts from
    trained weights, and at which side it wants photos; None for random weights and any side."""


@dataclass(frozen=True)
class ComponentFamily:
    """Describe many components by one rule, such as every model of a library or every file of a type."""

    name: str
    """The name of the family in ``ebsc plugins list``, e.g. ``timm``."""
    summary: str
    """One line that says which names belong to the family."""
    resolve: str | Callable[[str], ComponentSpec | None]
    """A function that maps the typed name to a component, or to None if the name is not of this family."""
    names: str | Callable[[], Iterable[str]] = tuple
    """A function that lists known names, which error messages suggest. The list may be empty."""
    reference: str = ""
    api_version: int = API_VERSION
    options: str | type | None = field(default=None, kw_only=True)
    """The :class:`ebsc_core.Options` class that all its components share, if they do, for ``ebsc plugins
    show``; a component itself has the class of its own record."""


Component = ComponentSpec | ComponentFamily


class Hooks:
    """Declare every hook that a plugin can implement. All are optional."""

    @hookspec
    def ebsc_datasets(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Yield data sets and file types that a run can read images from (``--data``)."""

    @hookspec
    def ebsc_backbones(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Yield networks that map images to features (``--backbone``)."""

    @hookspec
    def ebsc_objectives(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Yield self-supervised objectives (``--objective``)."""

    @hookspec
    def ebsc_coefficient_models(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Yield models of the self-expressive coefficients (``--coefficients``)."""

    @hookspec
    def ebsc_clusterers(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Yield clusterers of an affinity or of features (``--clusterer``)."""

    @hookspec
    def ebsc_observers(self) -> Iterable[Component]:  # type: ignore[empty-body]
        """Yield observers, which a run tells of its progress (``--observer``)."""


@dataclass(frozen=True)
class RunStarted:
    """Report that the components exist and their options are valid. Nothing has been read yet."""

    directory: Path
    """The run directory. Its files appear when the run finishes, not earlier."""
    config: dict[str, Any]
    """The configuration as plain values, with the name and options of each component."""
    parts: dict[str, str]
    """Distribution and version of each component, by section of the configuration."""


@dataclass(frozen=True)
class EpochFinished:
    """Report that an epoch of training is over."""

    directory: Path
    phase: str
    """``joint`` in the joint phase, else ``warm-up``."""
    epoch: int
    """The number of the epoch, from 1. Training that resumes starts with a later number."""
    epochs: int
    """The number of epochs of the whole training."""
    figures: dict[str, float]
    """``loss``, ``effective_rank`` and, in a joint phase with a model, ``joint_error`` (see
    ``metrics.json``)."""


@dataclass(frozen=True)
class StageFinished:
    """Report that a stage of the run is over."""

    directory: Path
    stage: str
    """The stage's name under ``seconds`` in ``metrics.json``, e.g. ``read data``, ``training``,
    ``figures``."""
    seconds: float


@dataclass(frozen=True)
class RunFinished:
    """Report that the run directory is complete."""

    directory: Path
    metrics: dict[str, Any]
    """The content of ``metrics.json``."""


@dataclass(frozen=True)
class RunFailed:
    """Report that the run ended early, by an error or by the user.

    The run directory no longer exists, unless the run can be resumed.
    """

    directory: Path
    error: str
    """Type and text of the error, e.g. ``DataError: …``."""


class RunHooks:
    """Declare every hook that an observer can implement. All are optional.

    The process that writes the run directory calls them in the order of events. The records are copies, so
    changing one has no effect on the run.
    """

    @hookspec
    def ebsc_run_started(self, event: RunStarted) -> None:
        """Handle the start of a run; called once, before all other hooks."""

    @hookspec
    def ebsc_epoch_finished(self, event: EpochFinished) -> None:
        """Handle the end of an epoch; not called if the run reuses trained features."""

    @hookspec
    def ebsc_stage_finished(self, event: StageFinished) -> None:
        """Handle the end of a stage."""

    @hookspec
    def ebsc_run_finished(self, event: RunFinished) -> None:
        """Handle a complete run; called last."""

    @hookspec
    def ebsc_run_failed(self, event: RunFailed) -> None:
        """Handle a run that ended early; called last."""
