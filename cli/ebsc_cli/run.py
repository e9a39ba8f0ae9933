"""``ebsc run``: images to clusters."""

from __future__ import annotations

from typing import Annotated, Any

from ebsc_cli.completion import parts
from ebsc_cli.flags import (
    METHOD,
    OPTION,
    OUTPUT,
    TRAINING,
    ClustererName,
    Coefficients,
    ConfigFile,
    Device,
    DictionarySize,
    NClusters,
    ObserverNames,
    Out,
    Quiet,
    Seed,
    Settings,
    WithReport,
)
from ebsc_cli.start import configured, start
from ebsc_core.plugins.kinds import Kind


def run(
    data: Annotated[
        str | None,
        OPTION(
            help="A data set's name, or a folder, .zip or .npz of images. \\[default: digits]",
            autocompletion=parts(Kind.DATA),
            rich_help_panel=METHOD,
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        OPTION(
            help="Any timm model by its name, or identity. \\[default: resnet18]",
            autocompletion=parts(Kind.BACKBONE),
            rich_help_panel=METHOD,
        ),
    ] = None,
    objective: Annotated[
        str | None,
        OPTION(
            help="Self-supervised objective. \\[default: simclr]",
            autocompletion=parts(Kind.OBJECTIVE),
            rich_help_panel=METHOD,
        ),
    ] = None,
    coefficients: Coefficients = None,
    clusterer: ClustererName = None,
    n_clusters: NClusters = None,
    dictionary_size: DictionarySize = None,
    settings: Settings = None,
    config: ConfigFile = None,
    data_root: Annotated[
        str | None,
        OPTION(help="Where named data sets are kept or downloaded to.", rich_help_panel=METHOD),
    ] = None,
    limit: Annotated[
        int | None, OPTION(help="Take a seeded sample of this many images.", rich_help_panel=METHOD)
    ] = None,
    skip_bad_images: Annotated[
        bool | None,
        OPTION("--skip-bad-images", help="Leave unreadable images out.", rich_help_panel=METHOD),
    ] = None,
    epochs: Annotated[
        int | None,
        OPTION(
            help="Passes over the data; 0 uses the backbone as it is. \\[default: 40]",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        OPTION(help="Images per step. \\[default: 256; 128 below 5,000 images]", rich_help_panel=TRAINING),
    ] = None,
    seed: Seed = None,
    device: Device = None,
    devices: Annotated[
        str | None,
        OPTION(
            metavar="N|all",
            help="Train on so many devices of this machine, a process each. \\[default: 1]",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    precision: Annotated[
        str | None,
        OPTION(
            help="auto, fp32 or bf16; auto takes bf16 where it is faster. \\[default: auto]",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    out: Out = None,
    cache: Annotated[
        str | None,
        OPTION(help="Where trained features are kept for reuse; none for nowhere.", rich_help_panel=OUTPUT),
    ] = None,
    observer: ObserverNames = None,
    report: WithReport = True,
    quiet: Quiet = False,
) -> None:
    """Cluster images: train a representation, express each image by others, cut the graph.

    Every part can be exchanged; `ebsc plugins list` shows what is installed.
    """
    flags: dict[str, Any] = {
        "data.name": data,
        "data.root": data_root,
        "data.limit": limit,
        "data.skip_bad_images": skip_bad_images,
        "backbone.name": backbone,
        "objective.name": objective,
        "coefficients.name": coefficients,
        "clusterer.name": clusterer,
        "n_clusters": n_clusters,
        "dictionary_size": dictionary_size,
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
