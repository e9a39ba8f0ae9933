"""``ebsc run``: images to clusters."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ebsc_cli.process import is_first, leave

OPTION = typer.Option
METHOD, TRAINING, OUTPUT = "Parts", "Training", "Machine and output"


def run(
    data: Annotated[
        str | None,
        OPTION(
            help="A data set's name, or a folder, .zip or .npz of images. \\[default: digits]",
            rich_help_panel=METHOD,
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        OPTION(help="Any timm model by its name, or identity. \\[default: resnet18]", rich_help_panel=METHOD),
    ] = None,
    objective: Annotated[
        str | None,
        OPTION(help="Self-supervised objective. \\[default: simclr]", rich_help_panel=METHOD),
    ] = None,
    coefficients: Annotated[
        str | None,
        OPTION(help="Model of the self-expressive coefficients. \\[default: energy]", rich_help_panel=METHOD),
    ] = None,
    clusterer: Annotated[
        str | None,
        OPTION(
            help="spectral, k-subspaces, or any scikit-learn clusterer. \\[default: spectral]",
            rich_help_panel=METHOD,
        ),
    ] = None,
    n_clusters: Annotated[
        int | None,
        OPTION(
            help="How many clusters. \\[default: the number of classes, where known]", rich_help_panel=METHOD
        ),
    ] = None,
    dictionary_size: Annotated[
        int | None,
        OPTION(
            help="Cluster a seeded sample of this many images; the others join its clusters. "
            "\\[default: all up to 2,000,000]",
            rich_help_panel=METHOD,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        OPTION(
            "--set",
            metavar="PART.OPTION=VALUE",
            help="Any option of any part, e.g. objective.temperature=0.3; repeatable.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        OPTION(
            metavar="FILE.toml",
            help="Read settings from a file; the command line wins.",
            rich_help_panel=METHOD,
        ),
    ] = None,
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
    seed: Annotated[int | None, OPTION(help="\\[default: 0]", rich_help_panel=TRAINING)] = None,
    device: Annotated[
        str | None, OPTION(help="auto, cpu, cuda, cuda:N or mps. \\[default: auto]", rich_help_panel=OUTPUT)
    ] = None,
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
    out: Annotated[
        Path | None,
        OPTION(help="The run directory. \\[default: a new one under runs/]", rich_help_panel=OUTPUT),
    ] = None,
    cache: Annotated[
        str | None,
        OPTION(help="Where trained features are kept for reuse; none for nowhere.", rich_help_panel=OUTPUT),
    ] = None,
    observer: Annotated[
        list[str] | None,
        OPTION(
            metavar="NAME",
            help="Tell a tracker of the run, e.g. tensorboard; repeatable.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    quiet: Annotated[
        bool, OPTION("--quiet", "-q", help="Print the result and warnings only.", rich_help_panel=OUTPUT)
    ] = False,
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
    # Imported here, so that `ebsc --help` does not wait for torch.
    from ebsc_core.config import load_config
    from ebsc_core.errors import ConfigError
    from ebsc_core.registry import Registry

    # A table for each, which --set may fill.
    if not all(observer or []):
        raise ConfigError("--observer needs the name of one; see `ebsc plugins list`")
    observed = [f"observers.{name}={{}}" for name in observer or []]
    loaded = load_config(config, [*observed, *(settings or [])], flags)
    if devices is not None:
        from ebsc_core.launch import launch

        status = launch(devices, loaded.device, ["-m", "ebsc_cli", *sys.argv[1:]])
        if status is not None:
            leave(status)  # the processes have said why

    from ebsc_cli.console import ConsoleProgress, print_result
    from ebsc_core.pipeline import run as run_pipeline
    from ebsc_core.progress import Progress
    from ebsc_core.recorded import compare_suppliers

    shown = ConsoleProgress(quiet=quiet or not is_first())
    progress, registry = shown if is_first() else Progress(), Registry()
    with shown:
        if config:
            compare_suppliers(config, loaded, registry, progress.warn)
        result = run_pipeline(loaded, registry, progress)
    if result:
        print_result(shown.console, result)
