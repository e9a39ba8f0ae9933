"""From an estimator's parameters to the configuration of a run, and from its mistakes to Python's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from ebsc_core.config.loading import load_config
from ebsc_core.config.schema import DataChoice, RunConfig
from ebsc_core.plugins.registry import Registry
from ebsc_core.runs.store.compatibility import compare_suppliers
from ebsc_core.utils.errors import ComponentError, ConfigError, DataError, DeviceError, EbscError, advice

# What the flags that messages speak of are called here.
FLAGS = {
    "--n-clusters": "n_clusters",
    "--batch-size": "batch_size",
    "--dictionary-size": "dictionary_size",
    "--skip-bad-images": "data.skip_bad_images",
    "--data-root": "data.root",
    "--limit": "data.limit",
    "--precision": "precision",
    "--device": "device",
    "--epochs": "epochs",
    "--out": "run_dir",
}


class GivenError(EbscError, ValueError):
    """What an estimator was given is wrong: also the ValueError that users of scikit-learn expect."""


def configuration(
    file: str | PathLike[str] | None, settings: Mapping[str, Any] | None, parameters: Mapping[str, Any]
) -> RunConfig:
    """The configuration of a file, over it settings, and over both the parameters that are not None.

    Raises
    ------
    ConfigError
        As :func:`ebsc_core.config.loading.load_config` does.
    """
    if settings is not None and not isinstance(settings, Mapping):
        raise ConfigError(f"settings must be a dictionary, such as {{'train.lr': 1e-3}}; got {settings!r}")
    settings_given = {key: _plain(value) for key, value in parameters.items() if value is not None}
    return load_config(Path(file) if file else None, (), dict(flat(settings or {})) | settings_given)


# Parameters of EBSC that a run calls otherwise; None of what only says how to run.
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
ELSEWHERE = ("settings", "config", "verbose")


def image_configuration(params: Mapping[str, Any], images: Any, warn: Callable[[str], None]) -> RunConfig:
    """The configuration of a run on images, from the parameters of ``EBSC``.

    Parameters
    ----------
    images : Any
        Their path or name enters; of images in memory, only that they are.
    warn : callable
        Told of parts that come in another version than the configuration file was made with.

    Raises
    ------
    ConfigError
        As a run does, and for what says nothing here.
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
        useless = [name for name, _ in flat(params["settings"] or {}) if name.partition(".")[0] == "data"]
        if useless:
            raise ConfigError(f"{useless[0]!r} says nothing of images that are in memory; leave it out")
        config = config.model_copy(update={"data": DataChoice()})  # a file's are those of another run
    if config.features:
        raise ConfigError("'features' are given in place of images; use EnergySubspaceClustering")
    if config.protocol != "all":
        raise ConfigError(
            f"protocol is {config.protocol!r}, but fit holds nothing out; predict what you hold out"
        )
    if params["config"]:
        compare_suppliers(Path(params["config"]), config, Registry(), warn)
    return config


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings with dotted names, whether they came as those or as tables in tables."""
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{name}.")
        else:
            yield name, _plain(value)


def _plain(value: Any) -> Any:
    """As TOML could have said it."""
    if isinstance(value, np.generic):
        return value.item()
    return fspath(value) if isinstance(value, PathLike) else value


def drawn_seed(random_state: Any) -> int:
    """A number as it is; of a generator, or of NumPy's own for None, the next one that it draws."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


@contextmanager
def mistakes() -> Iterator[None]:
    """Errors speak of parameters, not of flags; what is wrong with what was given is a ValueError, too."""
    try:
        yield
    except GivenError:
        raise
    except EbscError as error:
        wrong = isinstance(error, ConfigError | DataError | ComponentError | DeviceError)
        kind = GivenError if wrong else type(error)
        translated = kind(spoken(str(error)))
        for note in advice(error):
            translated.add_note(spoken(note))
        raise translated from error.__cause__


def spoken(text: str) -> str:
    """A message for the command line in the words of Python."""
    text = re.sub(r"ebsc resume ('[^']*'|\S+)", "fit again", text)
    text = text.replace("--n-clusters auto", "n_clusters='auto'")
    text = re.sub(r"--set ([\w.]+)=([\w.]+)", _as_setting, text)
    text = re.sub(r"--set (?=[\w.]+)", "", text)
    return re.sub(r"--[a-z-]+[a-z]", lambda flag: FLAGS.get(flag[0], flag[0]), text)


def _as_setting(match: re.Match[str]) -> str:
    name, value = match.groups()
    known = {"true": "True", "false": "False"}
    value = known.get(value) or (value if re.fullmatch(r"[\d.]+", value) else repr(value))
    return f"settings={{{name!r}: {value}}}"
