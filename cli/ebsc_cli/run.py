"""Implement ``ebsc run``: cluster images."""

from __future__ import annotations

from typing import Annotated, Any

from ebsc_cli.completion import one_of, parts
from ebsc_cli.flags import (
    DATA,
    METHOD,
    OPTION,
    OUTPUT,
    TRAINING,
    ClustererName,
    Coefficients,
    ConfigFile,
    DataRoot,
    Device,
    Devices,
    DictionarySize,
    Like,
    Limit,
    NClusters,
    ObserverNames,
    Out,
    Pretrained,
    Quiet,
    Seed,
    Settings,
    SkipBadImages,
    Weights,
    WithReport,
)
from ebsc_cli.start import configured, start
from ebsc_core.plugins.kinds import Kind


def run(
    data: Annotated[
        str | None,
        OPTION(
            "--data",
            metavar="DATA",
            help="The name of a data set, or a folder, .zip, .npz or .npy of images. \\[default: digits]",
            autocompletion=parts(Kind.DATA),
            rich_help_panel=DATA,
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        OPTION(
            metavar="NAME",
            help="Any timm model by its name, pca, scattering or identity. \\[default: resnet18]",
            autocompletion=parts(Kind.BACKBONE),
            rich_help_panel=METHOD,
        ),
    ] = None,
    pretrained: Pretrained = None,
    weights: Weights = None,
    objective: Annotated[
        str | None,
        OPTION(
            metavar="NAME",
            help="The self-supervised objective. \\[default: simclr]",
            autocompletion=parts(Kind.OBJECTIVE),
            rich_help_panel=METHOD,
        ),
    ] = None,
    coefficients: Coefficients = None,
    clusterer: ClustererName = None,
    n_clusters: NClusters = None,
    dictionary_size: DictionarySize = None,
    like: Like = None,
    settings: Settings = None,
    config: ConfigFile = None,
    data_root: DataRoot = None,
    limit: Limit = None,
    skip_bad_images: SkipBadImages = None,
    epochs: Annotated[
        int | None,
        OPTION(
            metavar="N",
            help="Passes over the data; with 0 the backbone is not trained. Trained weights have 0. "
            "\\[default: 40]",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        OPTION(
            metavar="N",
            help="Images per step. \\[default: 256; 128 below 5,000 images]",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    seed: Seed = None,
    device: Device = None,
    devices: Devices = None,
    precision: Annotated[
        str | None,
        OPTION(
            metavar="NAME",
            help="auto, fp32 or bf16; auto uses bf16 where it is faster. \\[default: auto]",
            autocompletion=one_of("auto", "fp32", "bf16"),
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    out: Out = None,
    cache: Annotated[
        str | None,
        OPTION(
            metavar="DIR",
            help="Folder that keeps trained features for reuse; none keeps nothing. "
            "\\[default: in the user's cache]",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    observer: ObserverNames = None,
    report: WithReport = True,
    quiet: Quiet = False,
) -> None:
    """Cluster images: learn features, express each image by other images, and cluster the graph.

    You can exchange every component; `ebsc plugins list` shows the installed ones.
    """
    flags: dict[str, Any] = {
        "data.name": data,
        "data.root": data_root,
        "data.limit": limit,
        "data.skip_bad_images": skip_bad_images,
        "backbone.name": backbone,
        "backbone.pretrained": pretrained,
        "backbone.weights": None if weights is None else str(weights),
        "objective.name": objective,
        "coefficients.name": coefficients,
        "clusterer.name": clusterer,
        "n_clusters": n_clusters,
        "dictionary_size": dictionary_size,
        "like": like,
        "train.epochs": epochs,
        "train.batch_size": batch_size,
        "seed": seed,
        "device": device,
        "precision": precision,
        "out": None if out is None else str(out),
        "cache": cache,
    }
    chosen = configured(config, observer, settings, flags)
    start(chosen, config, quiet, devices, with_report=report)
