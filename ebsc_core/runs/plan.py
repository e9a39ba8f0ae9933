"""Find the components that a configuration names, and check their options."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, ClassVar

from ebsc_core.config.schema import (
    COMPONENT_SECTIONS,
    OF_IMAGES,
    OF_NEIGHBORS,
    ComponentChoice,
    RunConfig,
    has_joint_phase,
)
from ebsc_core.plugins.installed import OWN_DISTRIBUTION
from ebsc_core.plugins.paths import missing_path
from ebsc_core.plugins.registry import Kind, Registry, UnknownComponentError
from ebsc_core.plugins.selection import Choice, check_options, choose
from ebsc_core.utils.errors import ConfigError
from ebsc_core.utils.paths import existing_file


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Hold the configuration and every component that a run on features needs."""

    unused: ClassVar[frozenset[str]] = frozenset(OF_IMAGES)
    """Settings that have no effect on such a run."""
    config: RunConfig
    coefficients: Choice
    clusterer: Choice
    observers: dict[str, Choice] = field(default_factory=dict)
    """Observers by their names."""
    images: Choice | None = None
    """The data set of the images that the features were made from, if it is named."""

    def choices(self) -> dict[str, Choice]:
        """Return the components by their section; observers, which change nothing, are not among them."""
        chosen = {section: getattr(self, section, None) for section in COMPONENT_SECTIONS}
        return {section: choice for section, choice in chosen.items() if choice is not None}

    def uses_objective(self) -> bool:
        """Return whether an objective may train something, as far as is known before the data is read."""
        return False

    def suppliers(self) -> dict[str, str]:
        """Return distribution and version of every component, by its section."""
        chosen = self.choices() | {
            Kind.OBSERVER.settings(name): choice for name, choice in self.observers.items()
        }
        return {section: str(choice.component.provider) for section, choice in chosen.items()}

    def warnings(self) -> list[str]:
        """Return what the authors of the components should change, a line each."""
        return list(dict.fromkeys(line for choice in self.choices().values() for line in choice.warnings))

    def tables(self) -> dict[str, Any]:
        """Return the configuration as plain values, with the names and all options of the components."""
        left_out = {"out", "cache", Kind.OBSERVER.section, *self.unused}
        tables = self.config.model_dump(mode="json", exclude=left_out)
        for section, choice in self.choices().items():
            tables[section] |= {"name": choice.name} | choice.options.model_dump(mode="json")
        told = {name: choice.options.model_dump(mode="json") for name, choice in self.observers.items()}
        return tables | ({Kind.OBSERVER.section: told} if told else {})


@dataclass(frozen=True, kw_only=True)
class ImagePlan(Plan):
    """Hold the configuration and every component that a run on images needs."""

    unused: ClassVar[frozenset[str]] = frozenset({"features"})
    data: Choice | None
    """None if nothing is read: the images are in memory, or the images of a finished run are not needed."""
    backbone: Choice
    objective: Choice
    joint: Choice | None
    """The coefficient model of the joint phase; None without a joint phase."""

    @property
    def side(self) -> int | None:
        """The side at which the backbone wants photos, in pixels, if it has a wish."""
        return self.backbone.start.side

    def uses_objective(self) -> bool:
        return self.config.train.epochs > 0 and self.backbone.component.spec.trainable


def make_plan(config: RunConfig, registry: Registry, reads: bool = True) -> Plan:
    """Find every component that the run needs, and check its options.

    The result is an :class:`ImagePlan` unless the configuration names features.

    Parameters
    ----------
    reads : bool
        Whether it reads the images that ``config`` names; else their data set need not be there.

    Raises
    ------
    ComponentError, ConfigError
        If a component is unknown or cannot be loaded, an option is unknown or ill-typed, or there are
        features and settings for images, too.
    """
    coefficients = choose(registry, Kind.COEFFICIENTS, config.coefficients)
    _require_searchable(coefficients, config.search.method)
    clustering: dict[str, Any] = {
        "config": config,
        "coefficients": coefficients,
        "clusterer": choose(registry, Kind.CLUSTERER, config.clusterer),
        "observers": {name: _observer(registry, name, options) for name, options in config.observers.items()},
    }
    if config.features:
        _require_no_images(config)
        name = config.features.images if reads else None
        return Plan(
            **clustering, images=choose(registry, Kind.DATA, ComponentChoice(name=name)) if name else None
        )
    backbone = choose(registry, Kind.BACKBONE, config.backbone)
    config = clustering["config"] = _frozen(config, backbone)
    return ImagePlan(
        **clustering,
        data=choose(registry, Kind.DATA, config.data) if reads else None,
        backbone=backbone,
        objective=choose(registry, Kind.OBJECTIVE, config.objective),
        joint=_joint(config, registry),
    )


def _frozen(config: RunConfig, backbone: Choice) -> RunConfig:
    """Leave trained weights as they are, unless the run says for how many epochs they train on."""
    if "epochs" in config.train.model_fields_set or not backbone.start.trained:
        return config
    return config.model_copy(update={"train": config.train.model_copy(update={"epochs": 0})})


def check_names(config: RunConfig, registry: Registry) -> None:
    """Raise the errors of names that no component or file has, as far as they need no heavy import.

    :func:`make_plan` raises them, too, but after seconds that the import of the components takes.

    Raises
    ------
    ComponentError, DataError
        If a component is unknown, or if data or features are not there.
    """
    kinds = [Kind.COEFFICIENTS, Kind.CLUSTERER]
    if config.features:
        existing_file(config.features.path)
    else:
        kinds += [Kind.DATA, Kind.BACKBONE, Kind.OBJECTIVE]
    for kind in kinds:
        name = getattr(config, kind.section).name
        if name and not registry.has_families(kind):
            registry.find(kind, name)
        elif name and kind is Kind.DATA:
            _require_existing(name, registry)
    for name in config.observers:
        registry.find(Kind.OBSERVER, name)


def _require_existing(name: str, registry: Registry) -> None:
    """Refuse data that is named by a path at which nothing is."""
    # What others read need not be a path of this machine.
    ours = all(entry.provider.distribution == OWN_DISTRIBUTION for entry in registry.of(Kind.DATA))
    if ours and (described := missing_path(name)):
        raise UnknownComponentError(described)


def _require_no_images(config: RunConfig) -> None:
    given = sorted(OF_IMAGES & config.model_fields_set)
    if given:
        raise ConfigError(
            f"features are given, so nothing is trained and {given[0]!r} says nothing; leave it out"
        )


def _observer(registry: Registry, name: str, options: dict[str, Any]) -> Choice:
    component = registry.find(Kind.OBSERVER, name)
    return Choice(component, check_options(component, options, Kind.OBSERVER.settings(name)))


def _joint(config: RunConfig, registry: Registry) -> Choice | None:
    """Return the coefficient model of the joint phase, or None if the run has no such phase."""
    joint, used = config.joint, has_joint_phase(config)
    choice = choose(registry, Kind.COEFFICIENTS, joint, "joint") if used or joint.options else None
    if used and choice:
        _require_trainable(choice)
        return choice
    given = joint.model_fields_set | set(joint.options)
    if "form" not in given and given and joint.start != 1:  # which asks for what is the default
        named = sorted(given)[0]
        forms = ["neighbors"] if named in OF_NEIGHBORS else ["reconstruction", "neighbors"]
        added = " or ".join(f"`joint.form={form}`" for form in forms)
        raise ConfigError(f"'joint.{named}' says nothing without a joint phase: leave it out, or add {added}")
    return None


def _require_trainable(choice: Choice) -> None:
    from ebsc_core.plugins.interfaces import TrainableCoefficientModel

    factory = choice.component.factory
    if isinstance(factory, type) and not issubclass(factory, TrainableCoefficientModel):
        raise ConfigError(
            f"joint.name is {choice.name!r}, which has nothing to train; name a trainable coefficient model "
            "or leave the joint phase out with `joint.form=none`"
        )


def _require_searchable(choice: Choice, method: str) -> None:
    if method in ("auto", "exact"):
        return
    from ebsc_core.clustering.inner_product import InnerProductModel

    factory = choice.component.factory
    if isinstance(factory, type) and not issubclass(factory, InnerProductModel):
        raise ConfigError(
            f"search.method is {method!r}, which finds the largest inner products; {choice.name!r} needs "
            "more than those, so leave search.method out"
        )
    if method == "faiss" and find_spec("faiss") is None:
        raise ConfigError(
            "search.method is 'faiss', which is not installed: pip install 'ebsc[faiss]', or use 'cells'"
        )
