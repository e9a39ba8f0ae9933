"""Turn an estimator's parameters into a run's configuration, and translate errors for Python users."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from ebsc_core.config.flags import respell
from ebsc_core.config.loading import flattened, load_config
from ebsc_core.config.schema import DataChoice, RunConfig
from ebsc_core.plugins.faults import guarded
from ebsc_core.plugins.registry import Registry
from ebsc_core.runs.store.compatibility import compare_suppliers
from ebsc_core.utils.errors import (
    ComponentError,
    ConfigError,
    DataError,
    DeviceError,
    EbscError,
    RunDirectoryError,
    advice,
)


class GivenError(EbscError, ValueError):
    """Report invalid input of an estimator; also a ValueError, as users of scikit-learn expect."""


def configuration(
    file: str | PathLike[str] | None, settings: Mapping[str, Any] | None, parameters: Mapping[str, Any]
) -> RunConfig:
    """Build the configuration: a file, overridden by settings, overridden by parameters that are not None.

    Raises
    ------
    ConfigError
        For the same reasons as :func:`ebsc_core.config.loading.load_config`, and if a setting is given
        twice.
    """
    if settings is not None and not isinstance(settings, Mapping):
        raise ConfigError(f"settings must be a dictionary, such as {{'train.lr': 1e-3}}; got {settings!r}")
    given = dict(flattened(settings or {}))
    parameters = {key: value for key, value in parameters.items() if value is not None}
    if twice := sorted(given.keys() & parameters.keys()):
        name = "X" if twice[0] == "data.name" else PARAMETERS.get(twice[0], twice[0])
        raise ConfigError(f"{twice[0]!r} in settings has no effect beside {name}; give one of the two")
    plain = {key: _plain(value) for key, value in (given | parameters).items()}
    return load_config(Path(file) if file else None, (), plain)


# The parameters of EBSC that have another name in a run's configuration.
SECTIONS = {
    "backbone": "backbone.name",
    "objective": "objective.name",
    "coefficients": "coefficients.name",
    "clusterer": "clusterer.name",
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
    "run_dir": "out",
    "random_state": "seed",
}
PARAMETERS = {setting: name for name, setting in SECTIONS.items()}
ELSEWHERE = ("settings", "config", "verbose")


def image_configuration(params: Mapping[str, Any], images: Any, warn: Callable[[str], None]) -> RunConfig:
    """Build the configuration of a run on images from the parameters of ``EBSC``.

    Parameters
    ----------
    images : Any
        Their path or name enters the configuration. Images in memory do not.
    warn : callable
        Called with a line about components whose version differs from that in the configuration file.

    Raises
    ------
    ConfigError
        For the same reasons as a run, and for settings that have no effect here.
    """
    named = isinstance(images, str | PathLike)
    settings_given = {
        SECTIONS.get(name, name): value for name, value in params.items() if name not in ELSEWHERE
    }
    if settings_given["seed"] is not None:
        settings_given["seed"] = drawn_seed(settings_given["seed"])
    if named:
        settings_given["data.name"] = images
    config = configuration(params["config"], params["settings"], settings_given)
    if not named:
        useless = [
            name for name, _ in flattened(params["settings"] or {}) if name.partition(".")[0] == "data"
        ]
        if useless:
            raise ConfigError(f"{useless[0]!r} has no effect on images in memory; leave it out")
        config = config.model_copy(update={"data": DataChoice()})  # a file has those of another run
    if config.features:
        raise ConfigError("'features' are given in place of images; use EnergySubspaceClustering")
    if config.protocol != "all":
        raise ConfigError(
            f"protocol is {config.protocol!r}, but fit holds nothing out; predict what you hold out"
        )
    if params["config"]:
        compare_suppliers(Path(params["config"]), config, Registry(), warn)
    return config


def _plain(value: Any) -> Any:
    """Convert a value to a type that TOML has."""
    if isinstance(value, np.generic):
        return value.item()
    return fspath(value) if isinstance(value, PathLike) else value


def drawn_seed(random_state: Any) -> int:
    """Return an integer unchanged; draw one from a generator, or from NumPy's own for None."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


@contextmanager
def mistakes() -> Iterator[None]:
    """Translate errors: they name parameters instead of flags, and wrong input is also a ValueError."""
    try:
        with guarded():
            yield
    except GivenError:
        raise
    except EbscError as error:
        wrong = isinstance(error, ConfigError | DataError | ComponentError | DeviceError)
        kind = GivenError if wrong else type(error)
        # An unfinished run that is named need not be the estimator's; then the command line goes on.
        own = not isinstance(error, RunDirectoryError)
        translated = kind(in_parameters(str(error), own))
        for note in advice(error):
            translated.add_note(in_parameters(note, own))
        raise translated from error.__cause__


def in_parameters(text: str, own: bool = True) -> str:
    """Spell the settings that a message names in backticks as parameters.

    If it is about the estimator's ``own`` run, say how to go on as a call, too.
    """
    if own:
        text = re.sub(r"ebsc resume ('[^']*'|\S+)", "fit again", text)
    return respell(text, _as_parameter)


def _as_parameter(name: str, value: str | None) -> str | None:
    if name.partition(".")[0] not in RunConfig.model_fields:
        return None
    parameter = PARAMETERS.get(name, name)
    if value is None:
        return parameter
    literal = {"true": "True", "false": "False"}.get(value)
    literal = literal or (value if re.fullmatch(r"[\d.]+", value) else repr(value))
    # Every estimator has these; any other setting enters both by `settings`.
    own = name in PARAMETERS or name in ("n_clusters", "dictionary_size", "device")
    return f"{parameter}={literal}" if own else f"settings={{{name!r}: {literal}}}"
