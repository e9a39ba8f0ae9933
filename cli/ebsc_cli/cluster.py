"""Implement ``ebsc cluster``: cluster features that were computed elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

from ebsc_cli.flags import (
    METHOD,
    OPTION,
    ClustererName,
    Coefficients,
    ConfigFile,
    Device,
    DictionarySize,
    Like,
    NClusters,
    ObserverNames,
    Out,
    Quiet,
    Seed,
    Settings,
    WithReport,
)
from ebsc_cli.start import configured, start


def cluster(
    features: Annotated[
        str, typer.Argument(metavar="FEATURES", help="A .npy, .npz, .h5, .parquet or .csv of features.")
    ],
    coefficients: Coefficients = None,
    clusterer: ClustererName = None,
    n_clusters: NClusters = None,
    dictionary_size: DictionarySize = None,
    like: Like = None,
    array: Annotated[
        str | None,
        OPTION(
            metavar="NAME",
            help="The array of an .npz or .h5 file that holds the features. "
            "\\[default: features, or the only one]",
            rich_help_panel=METHOD,
        ),
    ] = None,
    labels: Annotated[
        str | None,
        OPTION(
            metavar="NAME",
            help="The array or column of classes, for scoring only. \\[default: labels, label or class]",
            rich_help_panel=METHOD,
        ),
    ] = None,
    ids: Annotated[
        str | None,
        OPTION(
            metavar="NAME",
            help="The array or column of row names. \\[default: ids, id, image, path or filename]",
            rich_help_panel=METHOD,
        ),
    ] = None,
    images: Annotated[
        str | None,
        OPTION(
            metavar="DATA",
            help="The images of the features, for the report: a data set, folder, .zip, .npz or .npy.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    settings: Settings = None,
    config: ConfigFile = None,
    seed: Seed = None,
    device: Device = None,
    out: Out = None,
    observer: ObserverNames = None,
    report: WithReport = True,
    quiet: Quiet = False,
) -> None:
    """Cluster given features: express each row by other rows, and cluster the graph, without a backbone."""
    flags = {
        "features.path": features,
        "features.array": array,
        "features.labels": labels,
        "features.ids": ids,
        "features.images": images,
        "coefficients.name": coefficients,
        "clusterer.name": clusterer,
        "n_clusters": n_clusters,
        "dictionary_size": dictionary_size,
        "like": like,
        "seed": seed,
        "device": device,
        "out": None if out is None else str(out),
    }
    start(configured(config, observer, settings, flags), config, quiet, with_report=report)
