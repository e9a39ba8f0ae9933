"""Define the options that several commands share, and spell settings in messages as flags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ebsc_cli.completion import one_of, parts, settings
from ebsc_core.config.flags import FLAGS, respell
from ebsc_core.plugins.kinds import Kind

OPTION = typer.Option
# What messages of core name that is given to a command without being a setting of the run.
OPTIONS = {"devices": "--devices", "into": "--into", "settings": "--set"}
OPTIONS |= {"threshold": "--threshold", "top": "--top"} | {
    name: f"--{name.replace('_', '-')}"
    for name in ("table", "memberships", "fiftyone", "label_studio", "copy", "typical", "doubtful", "sheets")
}
DATA, METHOD, TRAINING, OUTPUT = "Data", "Parts", "Training", "Machine and output"

DataRoot = Annotated[
    str | None,
    OPTION(
        "--data-root",
        metavar="DIR",
        help="Folder of named data sets and downloads. \\[default: in the user's cache]",
        rich_help_panel=DATA,
    ),
]
ImagesNow = Annotated[
    str | None,
    OPTION(
        "--data", metavar="PATH", help="Where the images of the run are now. \\[default: where they were]"
    ),
]
Limit = Annotated[
    int | None,
    OPTION(
        "--limit",
        metavar="N",
        help="Use a seeded sample of this many images. \\[default: all]",
        rich_help_panel=DATA,
    ),
]
SkipBadImages = Annotated[
    bool | None,
    OPTION("--skip-bad-images", help="Leave out unreadable images.", rich_help_panel=DATA),
]

Pretrained = Annotated[
    bool | None,
    OPTION(
        "--pretrained",
        help="Start from timm's weights of this backbone, at the size of images that these expect.",
        rich_help_panel=METHOD,
    ),
]
Weights = Annotated[
    Path | None,
    OPTION(
        metavar="FILE",
        help="Start from the weights in a file: of a run, of timm, or a checkpoint of torch.",
        rich_help_panel=METHOD,
    ),
]
Coefficients = Annotated[
    str | None,
    OPTION(
        metavar="NAME",
        help="The model of the self-expressive coefficients. \\[default: energy]",
        autocompletion=parts(Kind.COEFFICIENTS),
        rich_help_panel=METHOD,
    ),
]
ClustererName = Annotated[
    str | None,
    OPTION(
        "--clusterer",
        metavar="NAME",
        help="The clusterer: spectral, k-subspaces, or any of scikit-learn. \\[default: spectral]",
        autocompletion=parts(Kind.CLUSTERER),
        rich_help_panel=METHOD,
    ),
]
NClusters = Annotated[
    str | None,
    OPTION(
        metavar="N|auto",
        help="The number of clusters; auto chooses a stable number. "
        "\\[default: the number of classes, if known]",
        rich_help_panel=METHOD,
    ),
]
DictionarySize = Annotated[
    int | None,
    OPTION(
        metavar="N",
        help="Cluster a seeded sample of this many images and assign the others to its clusters. "
        "\\[default: all up to 2,000,000]",
        rich_help_panel=METHOD,
    ),
]
Like = Annotated[
    str | None,
    OPTION(
        metavar="RUN",
        help="Keep the numbers and names of clusters of an earlier run, matched by the images of both.",
        rich_help_panel=METHOD,
    ),
]
Settings = Annotated[
    list[str] | None,
    OPTION(
        "--set",
        metavar="SECTION.OPTION=VALUE",
        help="Set any option of any component, e.g. objective.temperature=0.3; repeatable.",
        autocompletion=settings,
        rich_help_panel=METHOD,
    ),
]
ConfigFile = Annotated[
    Path | None,
    OPTION(
        "--config",
        metavar="FILE.toml",
        help="Read settings from a file; options on the command line override it.",
        rich_help_panel=METHOD,
    ),
]
Seed = Annotated[
    int | None, OPTION(metavar="N", help="The random seed. \\[default: 0]", rich_help_panel=TRAINING)
]
Device = Annotated[
    str | None,
    OPTION(
        metavar="NAME",
        help="The device: auto, cpu, cuda, cuda:N or mps. \\[default: auto]",
        autocompletion=one_of("auto", "cpu", "cuda", "mps"),
        rich_help_panel=OUTPUT,
    ),
]
Out = Annotated[
    Path | None,
    OPTION(
        metavar="DIR",
        help="The run directory. \\[default: a new one under runs/]",
        rich_help_panel=OUTPUT,
    ),
]
TableOut = Annotated[
    Path | None,
    OPTION(
        "-o",
        "--out",
        metavar="FILE",
        help="Also write it as a table (.csv, .json or .parquet), in place of a file that is there.",
    ),
]
Devices = Annotated[
    str | None,
    OPTION(
        metavar="N|all",
        help="Train on this many devices of this machine, one process per device. \\[default: 1]",
        rich_help_panel=OUTPUT,
    ),
]
ObserverNames = Annotated[
    list[str] | None,
    OPTION(
        "--observer",
        metavar="NAME",
        help="Report the run to an observer, e.g. tensorboard; repeatable.",
        autocompletion=parts(Kind.OBSERVER),
        rich_help_panel=OUTPUT,
    ),
]
WithReport = Annotated[
    bool,
    OPTION(
        "--report/--no-report",
        help="Write report.html, which takes some seconds; `ebsc report` can write it later.",
        rich_help_panel=OUTPUT,
    ),
]
Quiet = Annotated[
    bool, OPTION("--quiet", "-q", help="Print only the result and warnings.", rich_help_panel=OUTPUT)
]


def in_flags(text: str) -> str:
    """Spell the settings that a message names in backticks as flags.

    ```n_clusters=auto``` becomes ``--n-clusters auto``. A setting without a flag of its own becomes
    ``--set name=value``.
    """
    return respell(text, _as_flag)


def _as_flag(name: str, value: str | None) -> str | None:
    flag = OPTIONS.get(name) or FLAGS.get(name, (None,))[0]
    if flag:
        return flag if value is None else f"{flag} {value}"
    # Imported here, so that `ebsc --help` does not wait for pydantic.
    from ebsc_core.config.schema import RunConfig

    if name.partition(".")[0] not in RunConfig.model_fields:
        return None
    return f"--set {name}" if value is None else f"--set {name}={value}"
