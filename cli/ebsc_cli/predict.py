"""Implement ``ebsc predict``: assign new images to the clusters of a finished run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ebsc_cli.flags import OPTION, DataRoot, Device, Quiet, SkipBadImages


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a finished run.")],
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...",
            help="New images: the name of a data set, a folder, .zip, .npz or .npy, or one or more files of "
            "single images. If the run clustered features: a file of features.",
        ),
    ],
    out: Annotated[
        Path,
        OPTION(
            "-o",
            "--out",
            metavar="FILE.csv",
            help="The output, a line per image; - is standard output, and notes then go to standard error.",
        ),
    ],
    features: Annotated[
        Path | None, OPTION(metavar="FILE.h5", help="Also write the features and embeddings of the images.")
    ] = None,
    top: Annotated[
        int,
        OPTION(
            min=1,
            metavar="N",
            help="From 2 on, also the N clusters with the largest shares of each image, and these shares.",
        ),
    ] = 1,
    settings: Annotated[
        list[str] | None,
        OPTION(
            "--set",
            metavar="data.OPTION=VALUE",
            help="Set any option of the data set (for features: features.OPTION=VALUE); repeatable.",
        ),
    ] = None,
    data_root: DataRoot = None,
    skip_bad_images: SkipBadImages = None,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Assign new images to the clusters of a finished run.

    The CSV file gets one line per image: image, cluster, confidence and, if clusters have names, name. Names,
    merges, splits and moves count. The command works batch by batch, so memory does not limit the number of
    images.
    """
    from ebsc_core.runs.store.directory import check_finished, check_output, own_files

    check_finished(run)  # before the imports below, which take seconds
    from ebsc_cli.console import ConsoleProgress
    from ebsc_core.clustering import metrics
    from ebsc_core.data.images.decoding import are_image_files
    from ebsc_core.plugins.registry import Registry
    from ebsc_core.runs.predict import Predictor, new_data, predict_to
    from ebsc_core.runs.store.saved import SavedRun
    from ebsc_core.utils.device import prepare, resolve_device
    from ebsc_core.utils.errors import ConfigError
    from ebsc_core.utils.files import check_form

    read = [*(Path(os.path.expanduser(one)) for one in data), *own_files(run)]
    piped = out == Path("-")
    if not piped:
        check_output(out, read)
        check_form(out, ".csv")
    if features:
        check_output(features, read)
        check_form(features, ".h5", ".hdf5")
        if features.absolute() == out.absolute():
            raise ConfigError(f"-o and --features are both {out}; give two files")
    saved, registry = SavedRun(run), Registry()
    chosen = resolve_device("auto" if device is None else device)
    takes_images = not saved.config.features
    if features and not takes_images:
        raise ConfigError(f"{run} clustered features and has no others to write; leave out --features")
    single = takes_images and are_image_files(data)
    given = {"--set": settings, "--skip-bad-images": skip_bad_images, "--data-root": data_root}
    if single and (flags := [flag for flag, value in given.items() if value]):
        raise ConfigError(f"{flags[0]} is about data sets, and these are single images; leave it out")
    if not single and len(data) > 1:
        raise ConfigError("give one data set, folder or file, or only files of single images")
    new = None if single else new_data(saved, data[0], settings or [], data_root, skip_bad_images)
    shown = ConsoleProgress(quiet=quiet, on_errors=piped)
    with shown:
        prepare(chosen)
        predictor = Predictor(saved, registry, chosen, shown)
        source = predictor.read(new) if new else predictor.convert(data)
        clusters = predict_to(predictor, source, sys.stdout if piped else out, features, top)
    what = "images" if takes_images else "rows"
    shown.note(f"{len(clusters)} {what} -> {'standard output' if piped else out}")
    none = int((clusters < 0).sum())
    if none:
        shown.warn(f"{none} of them have no cluster (-1): nothing of any cluster expresses them")
    if source.labels is not None:
        figures = metrics.scores(source.labels, clusters).items()
        shown.note(", ".join(f"{name.upper()} {100 * value:.1f} %" for name, value in figures))
