"""List every command: where it is defined, the first line of its help, and an example.

``ebsc --help`` shows this table. The module of a command is imported when the command is called, so help does
not wait for what the commands need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple

import typer

from ebsc_cli.help import HelpfulCommand, HelpfulGroup
from ebsc_cli.process import is_first
from ebsc_core.utils.errors import Interrupted


class Entry(NamedTuple):
    """Describe a command, or a group of commands."""

    summary: str
    """The first line of the docstring of its function."""
    example: str
    where: str = ""
    """Where the function is: ``module:function``. A group has none; its commands are those below it."""
    default: str = ""
    """The command of a group that takes words which begin with no command."""


COMMANDS = {
    "run": Entry(
        "Cluster images: learn features, express each image by other images, and cluster the graph.",
        "ebsc run --data photos/ --n-clusters 12",
        "ebsc_cli.run:run",
    ),
    "cluster": Entry(
        "Cluster given features: express each row by other rows, and cluster the graph, without a backbone.",
        "ebsc cluster features.npy --n-clusters 12",
        "ebsc_cli.cluster:cluster",
    ),
    "predict": Entry(
        "Assign new images to the clusters of a finished run.",
        "ebsc predict runs/SOME-RUN more-photos/ -o out.csv",
        "ebsc_cli.predict:predict",
    ),
    "resume": Entry(
        "Finish a run that was stopped or killed. Training resumes from its last checkpoint.",
        "ebsc resume runs/SOME-RUN",
        "ebsc_cli.resume:resume",
    ),
    "runs": Entry(
        "List the finished and unfinished runs below a folder, newest first.",
        "ebsc runs",
        "ebsc_cli.runs:runs",
    ),
    "compare": Entry(
        "Compare the figures, the configurations and the clusters of runs.",
        "ebsc compare runs/SOME-RUN runs/OTHER-RUN -o compared.html",
        "ebsc_cli.compare:compare",
    ),
    "report": Entry(
        "Write report.html of a finished run again: images of each cluster, a map, figures and warnings.",
        "ebsc report runs/SOME-RUN --open",
        "ebsc_cli.report:report",
    ),
    "name": Entry(
        "Give clusters names, or list the clusters with their sizes and names.",
        "ebsc name runs/SOME-RUN 3 herbs",
        "ebsc_cli.decisions:name",
    ),
    "merge": Entry(
        "Join clusters to one; the smallest number stays.",
        "ebsc merge runs/SOME-RUN 3 7",
        "ebsc_cli.decisions:merge",
    ),
    "split": Entry(
        "Cut a cluster into parts by the affinity that the run has saved, without training anything again.",
        "ebsc split runs/SOME-RUN 3 --into 2",
        "ebsc_cli.decisions:split",
    ),
    "move": Entry(
        "Move single images to another cluster, or to none.",
        "ebsc move runs/SOME-RUN 3 rose.jpg tulip.jpg",
        "ebsc_cli.decisions:move",
    ),
    "tree": Entry(
        "Show the clusters as a tree: those that are joined first share most affinity.",
        "ebsc tree runs/SOME-RUN",
        "ebsc_cli.tree:tree",
    ),
    "export": Entry(
        "Export the clusters of a finished run, with all names, merges, splits and moves.",
        "ebsc export runs/SOME-RUN --out sorted-photos --typical 20",
        "ebsc_cli.export:export",
    ),
    "duplicates": Entry(
        "Find groups of duplicates: equal images, and resized, recompressed or slightly cropped ones.",
        "ebsc duplicates photos/ -o duplicates.csv --picture pairs.png",
        "ebsc_cli.duplicates:duplicates",
    ),
    "outliers": Entry(
        "List the images of a finished run that belong least to the others, with reasons.",
        "ebsc outliers runs/SOME-RUN --top 20",
        "ebsc_cli.outliers:outliers",
    ),
    "similar": Entry(
        "Show the images of a finished run that are most similar to a given one, with their clusters.",
        "ebsc similar runs/SOME-RUN photo.jpg --top 10",
        "ebsc_cli.similar:similar",
    ),
    "doctor": Entry(
        "Check packages, plugins, devices and disks, and do a small run; exit with status 1 on failure.",
        "ebsc doctor",
        "ebsc_cli.doctor:doctor",
    ),
    "benchmark": Entry(
        "Run every row of a suite on every data set with every seed, and write the table.",
        "ebsc benchmark suite.toml --minutes 60",
        "ebsc_cli.benchmark:benchmark",
    ),
    "cache": Entry(
        "Show what ebsc keeps between runs, how large it is and where; or remove features.",
        "ebsc cache clear --older-than 30d",
        "ebsc_cli.cache:cache",
    ),
    "features": Entry(
        "Describe a file of features (ebsc features RUN or FILE), or make one from images (extract).",
        "ebsc features runs/SOME-RUN",
        default="show",
    ),
    "features show": Entry(
        "Show the number of rows, their width, names, classes, lengths and effective rank.",
        "ebsc features features.npy",
        "ebsc_cli.features:show",
    ),
    "features extract": Entry(
        "Extract features of images with a backbone as it is, without training.",
        "ebsc features extract photos/ --backbone resnet50 --pretrained -o f.h5",
        "ebsc_cli.features:extract",
    ),
    "plugins": Entry(
        "List the installed components, show their options, check them, or write your own.",
        "ebsc plugins list",
    ),
    "plugins list": Entry(
        "List the installed components by kind; * marks the default of a kind.",
        "ebsc plugins list",
        "ebsc_cli.plugins:list_plugins",
    ),
    "plugins show": Entry(
        "Show one component: its options with types, defaults and meaning, its source and its distribution.",
        "ebsc plugins show simclr",
        "ebsc_cli.plugins:show",
    ),
    "plugins new": Entry(
        "Write a package with a new component and its tests. It works as it is, and you can change it.",
        "ebsc plugins new objective my-loss",
        "ebsc_cli.plugins:new",
    ),
    "plugins check": Entry(
        "Check that a component keeps the contract of its kind; exit with status 1 if it does not.",
        "ebsc plugins check simclr",
        "ebsc_cli.check:check",
    ),
}


class Commands(Mapping[str, Any]):
    """Hold the commands whose names follow ``prefix`` in the table; load each when it is asked for."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.loaded: dict[str, Any] = {}

    def __iter__(self) -> Iterator[str]:
        names = (path.removeprefix(self.prefix) for path in COMMANDS if path.startswith(self.prefix))
        return (name for name in names if " " not in name)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return any(name == one for one in self)

    def __getitem__(self, name: str) -> Any:
        if name not in self.loaded:
            self.loaded[name] = load(self.prefix + name)
        return self.loaded[name]


class Command(HelpfulCommand):
    """Guard a command against the code of plugins, and say what remains of one that was interrupted."""

    def invoke(self, ctx: Any) -> Any:
        from ebsc_core.plugins.faults import guarded  # help does not wait for it

        try:
            with guarded(may_end=__package__):
                return super().invoke(ctx)
        except KeyboardInterrupt as error:  # Typer drops its notes
            if is_first():
                raise Interrupted("interrupted") from error
            raise


class Group(HelpfulGroup):
    """Load a command when it is called."""

    def __init__(self, *, prefix: str = "", default: str = "", **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = Commands(prefix)  # type: ignore[assignment]
        self.default = default

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Give the words to the default command unless the first is a command or an option of the group."""
        if self.default and args:
            own = [name for one in self.get_params(ctx) for name in (*one.opts, *one.secondary_opts)]
            if args[0] not in (*self.commands, *own):
                args = [self.default, *args]
        return super().parse_args(ctx, args)

    def summaries(self) -> dict[str, str]:
        return {name: COMMANDS[self.commands.prefix + name].summary for name in self.commands}  # type: ignore[attr-defined]


def load(path: str) -> Any:
    """Import the command of this name in the table, with its options, or make the group."""
    entry, name = COMMANDS[path], path.rpartition(" ")[2]
    if not entry.where:
        return Group(
            prefix=f"{path} ",
            default=entry.default,
            name=name,
            help=entry.summary,
            epilog=entry.example,
            no_args_is_help=True,
        )
    module, _, function = entry.where.partition(":")
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    app.command(name, cls=Command, epilog=entry.example)(getattr(import_module(module), function))
    return typer.main.get_command(app)
