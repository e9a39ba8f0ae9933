"""``ebsc predict``: new images join the clusters of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ebsc_cli.flags import OPTION, Device, Quiet


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a finished run.")],
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="New images: a data set's name, folder, .zip or .npz. Of a run on features: a file of them.",
        ),
    ],
    out: Annotated[Path, OPTION("-o", "--out", metavar="FILE.csv", help="A line per image.")],
    features: Annotated[
        Path | None, OPTION(metavar="FILE.h5", help="Write the images' features and embeddings, too.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        OPTION(
            "--set",
            metavar="data.OPTION=VALUE",
            help="Any option of the data set (of a features file: features.OPTION=VALUE); repeatable.",
        ),
    ] = None,
    data_root: Annotated[str | None, OPTION(help="Where named data sets are kept or downloaded to.")] = None,
    skip_bad_images: Annotated[
        bool, OPTION("--skip-bad-images", help="Leave unreadable images out.")
    ] = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Give new images the clusters of a finished run, one line each: image, cluster, confidence.

    Images are read, embedded and assigned batch by batch, however many there are.
    """
    from ebsc_cli.console import ConsoleProgress
    from ebsc_core.clustering import metrics
    from ebsc_core.data.images.source import ImageSource
    from ebsc_core.plugins.registry import Registry
    from ebsc_core.runs.predict import Predictor, predict_to
    from ebsc_core.runs.store.directory import own_files
    from ebsc_core.runs.store.saved import SavedRun
    from ebsc_core.utils.device import prepare, resolve_device
    from ebsc_core.utils.errors import ConfigError
    from ebsc_core.utils.files import check_writable

    read = [Path(data).expanduser(), *own_files(run)]
    check_writable(out, read)
    if features:
        check_writable(features, read)
        if features.absolute() == out.absolute():
            raise ConfigError(f"-o and --features are both {out}; give two files")
    saved, registry, chosen = SavedRun(run), Registry(), resolve_device(device or "auto")
    shown = ConsoleProgress(quiet=quiet)
    with shown:
        prepare(chosen)
        predictor = Predictor(saved, registry, chosen, shown)
        source = predictor.read(data, settings or [], root=data_root, skip_bad_images=skip_bad_images)
        if features and not isinstance(source, ImageSource):
            raise ConfigError(f"{run} was a run on features: there are no others for --features to write")
        clusters = predict_to(predictor, source, out, features)
    shown.note(f"{len(clusters)} {'images' if predictor.takes_images else 'rows'} -> {out}")
    if source.labels is not None:
        figures = metrics.scores(source.labels, clusters).items()
        shown.note(", ".join(f"{name.upper()} {100 * value:.1f} %" for name, value in figures))
