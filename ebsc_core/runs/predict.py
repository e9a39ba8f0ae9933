"""Assign new images, or new rows of features, to the clusters of a finished run."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor, nn

from ebsc_core.clustering.assign import Shares
from ebsc_core.clustering.cluster import OutOfSampleAssigner
from ebsc_core.config.loading import load_config
from ebsc_core.config.schema import DataChoice, RunConfig
from ebsc_core.data.features.files import READERS, read_features
from ebsc_core.data.features.rows import HeldRows
from ebsc_core.data.features.source import FeatureSource
from ebsc_core.data.features.store import FeatureTable, FeatureWriter
from ebsc_core.data.images.channels import InChannels
from ebsc_core.data.images.python_inputs import given_images
from ebsc_core.data.images.reading import read_images
from ebsc_core.data.images.source import ImageSource
from ebsc_core.plugins.faults import origin
from ebsc_core.plugins.interfaces import Backbone, ImageInfo, Objective
from ebsc_core.plugins.registry import Kind, Registry
from ebsc_core.plugins.selection import Choice, check_options
from ebsc_core.runs.clustering_stage import ClusteringStage
from ebsc_core.runs.plan import ImagePlan, Plan, make_plan
from ebsc_core.runs.resolve import ResolvedClusteringSettings
from ebsc_core.runs.store.compatibility import compare_suppliers
from ebsc_core.runs.store.directory import CONFIG
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.runs.store.unfinished import outside
from ebsc_core.training.extract import feature_blocks
from ebsc_core.training.precision import extracts_in_bf16
from ebsc_core.utils.errors import NOTHING_WRITTEN, DataError, RunDirectoryError
from ebsc_core.utils.files import written_whole
from ebsc_core.utils.hashing import digest
from ebsc_core.utils.progress import Progress, Stages
from ebsc_core.utils.weights import read_weights


class Predictor:
    """Hold the components of a finished run as it left them, and its clusters after all decisions.

    Parameters
    ----------
    clusters : ndarray of shape (N,), optional
        Other clusters of the fitted rows to assign to; -1 for rows that shall have no vote.

    Raises
    ------
    EbscError
        If a component is not installed, or a file of the run is damaged.
    """

    def __init__(
        self,
        run: SavedRun,
        registry: Registry,
        device: torch.device,
        progress: Progress | None = None,
        clusters: np.ndarray | None = None,
    ) -> None:
        self.run, self.registry, self.device = run, registry, device
        self.progress = progress or Progress()
        # New images can be assigned even if the images of the run are gone.
        needed = run.config.model_copy(update={"data": DataChoice()})
        if run.files.unchecked:
            self.progress.warn(run.files.unchecked)
        compare_suppliers(run.path / CONFIG, needed, registry, self.progress.warn)
        self.plan: Plan = make_plan(run.config, registry, reads=False)
        for setting, path in outside(needed).items():
            if setting.partition(".")[0] in self.plan.choices():
                self.progress.note(f"the run names {path} (`{setting}`), which its component may read")
        self.width = run.rows.width
        """Number of columns of a row."""
        self.assigner = self._rebuild_assigner(run.curated.clusters if clusters is None else clusters)

    @property
    def takes_images(self) -> bool:
        """Whether the run was on images; if not, it has no network to compute features."""
        return isinstance(self.plan, ImagePlan)

    def read(self, new: RunConfig, download: bool = True) -> ImageSource | FeatureSource:
        """Read new images in the size and the channels of the run, or new features of the same width.

        Parameters
        ----------
        new : RunConfig
            What :func:`new_data` returns for this run.
        download : bool
            Whether a data set that is missing may be downloaded.

        Raises
        ------
        EbscError
            If it cannot be read or does not fit.
        """
        if new.features:
            features = read_features(new.features)
            self._check_width(features)
            return features
        return self._images(new.data, download)

    def _images(self, choice: DataChoice, download: bool) -> ImageSource:
        settings, name = choice.options, str(choice.name)
        component = self.registry.find(Kind.DATA, name)
        if self._side and "size" in component.options_class.model_fields:
            settings = {"size": self._side} | settings
        chosen = Choice(component, check_options(component, settings, Kind.DATA.section))
        seed, warn, side = self.run.config.seed, self.progress.warn, self._wanted_side
        return self._alike(read_images(chosen, choice, seed, warn, download=download, side=side))

    def convert(self, images: Any) -> ImageSource:
        """Convert images in memory, or read files of single images, in the size and channels of the run.

        Parameters
        ----------
        images
            What :func:`ebsc_core.data.images.python_inputs.given_images` takes, paths for instance.

        Raises
        ------
        DataError
            If a file cannot be read, or if the images do not fit.
        """
        return self._alike(given_images(images, size=self._side, largest=self._wanted_side))

    @property
    def _side(self) -> int | None:
        """The side of the images of the run if they are square."""
        return self._info.height if self._info.height == self._info.width else None

    @property
    def _wanted_side(self) -> int | None:
        """The side at which the backbone wants photos, in pixels, if it has a wish."""
        return self.plan.side if isinstance(self.plan, ImagePlan) else None

    def _alike(self, images: ImageSource) -> ImageSource:
        info = self._info
        if images.shape[1:] != (info.height, info.width):
            _, height, width = images.shape
            raise DataError(
                f"{images.name}: images are of {height}x{width}, those of {self.run.path} of "
                f"{info.height}x{info.width}; bring them to that size"
            )
        return InChannels(images, info.channels)

    def extract(self, images: ImageSource) -> Iterator[FeatureTable]:
        """Yield features and embeddings of images, block by block in their order."""
        backbone, objective = self._network()
        with closing(images):
            trained, precision = objective is not None, self.run.config.precision
            bf16 = extracts_in_bf16(precision, self.device, backbone, trained)
            yield from feature_blocks(backbone, objective, images, self.device, self.progress, bf16=bf16)

    def rows_of(self, table: FeatureTable) -> Tensor:
        """Return the rows of a block that join, unit length: features or embeddings, as in the run."""
        return table.expressed(self.run.config.express)

    def assign(self, rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return the clusters ``(B,)`` and the confidence ``(B,)`` of unit-length rows ``(B, D)``."""
        return self.assigner.predict(HeldRows(rows))

    def shares(self, rows: Tensor, top: int) -> Shares:
        """Return clusters and confidence of unit-length rows ``(B, D)``, and the ``top`` largest shares."""
        return self.assigner.shares(HeldRows(rows), top)

    def _check_width(self, features: FeatureSource) -> None:
        if features.shape[1] != self.width:
            raise DataError(
                f"{features.path}: its rows have {features.shape[1]} numbers, those of {self.run.path} have "
                f"{self.width}; give features of the same kind"
            )

    def _rebuild_assigner(self, clusters: np.ndarray) -> OutOfSampleAssigner:
        run, config = self.run, self.run.config
        found = run.assignments
        count, whiten = config.n_clusters, config.whiten
        # There is no number if the clusterer has found it itself; joining the clusters needs none.
        if config.top_k is None or count == "auto" or whiten == "auto":
            raise RunDirectoryError(f"{run.path}: run.toml does not say all that was settled")
        resolved = ResolvedClusteringSettings(
            n_clusters=count,
            dictionary_size=config.dictionary_size,
            top_k=config.top_k,
            whiten=whiten,
        )
        clustering_stage = ClusteringStage(self.plan, resolved, self.device, Stages(), self.progress)
        return clustering_stage.rebuild_assigner(
            run.rows,
            clusters[: found.fitted],
            run.curated.sure(found.confidence)[: found.fitted],
            lambda model: self._weights("coefficients", model),
        )

    @property
    def _info(self) -> ImageInfo:
        recorded = self.run.provenance.get("images")
        try:
            info = dict(recorded or {})
            for name in ("mean", "std"):
                info[name] = tuple(info[name])
            return ImageInfo(**info)
        except (TypeError, ValueError, KeyError):
            raise RunDirectoryError(
                f"{self.run.path}: run.toml does not say what its images were like; repeat the run with "
                f"`ebsc run --config {self.run.path / CONFIG}`"
            ) from None

    def _network(self) -> tuple[Backbone, Objective | None]:
        assert isinstance(self.plan, ImagePlan)
        seed = self.run.config.seed
        chosen = self.plan.backbone.without_weights(self.run.weights("backbone"))
        backbone: Backbone = chosen.build_seeded(seed, self._info)
        modules: dict[str, nn.Module] = {"backbone": backbone}
        objective: Objective | None = None
        if self.run.has_weights("objective"):
            objective = self.plan.objective.build_seeded(seed, backbone)
            modules["objective"] = objective
        for name, module in modules.items():
            module.load_state_dict(self._weights(name, module))
        return backbone.to(self.device), objective and objective.to(self.device)

    def _weights(self, name: str, module: nn.Module) -> dict[str, Tensor]:
        return read_weights(module, self.run.weights(name))


def new_data(
    run: SavedRun,
    name: str,
    settings: Iterable[str] = (),
    root: str | None = None,
    skip_bad_images: bool | None = None,
) -> RunConfig:
    """Say what :meth:`Predictor.read` shall read; nothing is read yet.

    Parameters
    ----------
    run : SavedRun
        The run whose clusters the new images or rows join.
    name : str
        A data set, folder, .zip or .npz; a file of features if the run was one on features.
    settings : iterable of str
        ``data.OPTION=VALUE`` or ``features.OPTION=VALUE``.
    root, skip_bad_images
        Of :class:`ebsc_core.config.schema.DataChoice`; None for what ``settings`` or the defaults say.

    Raises
    ------
    EbscError
        If a setting is about something else, or if a run on features gets something else.
    """
    section, key = ("features", "path") if run.config.features else ("data", "name")
    flags = {f"{section}.{key}": name, "data.root": root, "data.skip_bad_images": skip_bad_images}
    if section == "features" and Path(name).suffix.lower() not in READERS:
        raise DataError(
            f"{run.path} was made from a file of features and has no network for images; give a file of such "
            f"features of the new images ({run.rows.width} numbers a row), not {name}"
        )
    return load_config(None, settings, flags, sections=[section])


def predict_to(
    predictor: Predictor,
    source: ImageSource | FeatureSource,
    out: Path | TextIO,
    features: Path | None = None,
    top: int = 1,
) -> np.ndarray:
    """Write one line per image or row: ``image,cluster,confidence`` and, if known, ``name`` and ``label``.

    Block by block: neither images nor lines are held. Files appear under their names only when complete.

    Parameters
    ----------
    source : ImageSource or FeatureSource
        As the run had.
    out : Path or text file
        A CSV; an open file gets its lines block by block.
    features : Path, optional
        An HDF5 file for the images' features and embeddings (see ``ebsc_core.data.features.store``).
    top : int
        From 2 on: add ``share``, the share of the coefficients that goes to the cluster, and the clusters
        with the next largest shares as ``cluster_2``, ``share_2`` and so on; empty where there are no more.

    Returns
    -------
    ndarray of shape (N,)
        The clusters; -1 for what nothing of any cluster expresses.

    Raises
    ------
    DataError
        If something cannot be read or written.
    BrokenPipeError
        If nobody reads the lines of an open file any more.
    """
    made_from = {"run": str(predictor.run.path.absolute()), "of": source.name}
    tables = predictor.extract(source) if isinstance(source, ImageSource) else _tables(source)
    names, labels = iter(source.ids), source.label_names()
    classes = iter(labels or [])
    clusters: list[np.ndarray] = []
    try:
        with ExitStack() as stack:
            lines = csv.writer(_opened(out, stack))
            writer = features and stack.enter_context(
                FeatureWriter(features, digest(made_from), made_from, source.ids, source.labels)
            )
            for table in tables:
                found = predictor.shares(predictor.rows_of(table), top)
                columns = _columns(found, predictor.run.curated.names, islice(names, len(found.labels)))
                if labels is not None:
                    columns["label"] = islice(classes, len(found.labels))
                columns |= _next_columns(found)
                if not clusters:
                    lines.writerow(columns)
                lines.writerows(zip(*columns.values(), strict=True))
                clusters.append(found.labels)
                if writer:
                    writer.append(table)
    except BrokenPipeError:
        raise  # who reads the lines has enough of them
    except OSError as error:
        if origin(error):
            raise
        where = error.filename or (out if isinstance(out, Path) else "the output")
        raise DataError(f"cannot write {where}: {error.strerror or error}") from error
    except KeyboardInterrupt as error:
        error.add_note(NOTHING_WRITTEN)
        raise
    return np.concatenate(clusters)


def _columns(found: Shares, names: Mapping[int, str], images: Iterable[str]) -> dict[str, Iterable[Any]]:
    columns: dict[str, Iterable[Any]] = {"image": images, "cluster": found.labels}
    columns["confidence"] = (f"{value:.4f}" for value in found.confidence)
    if names:
        columns["name"] = (names.get(cluster, "") for cluster in found.labels.tolist())
    return columns


def _next_columns(found: Shares) -> dict[str, Iterable[Any]]:
    """Return the columns of shares, if more than one cluster is wanted."""
    columns: dict[str, Iterable[Any]] = {}
    for place in range(found.clusters.shape[1] if found.clusters.shape[1] > 1 else 0):
        clusters, shares = found.clusters[:, place].tolist(), found.shares[:, place].tolist()
        suffix = f"_{place + 1}" if place else ""
        if place:
            columns[f"cluster{suffix}"] = ("" if cluster < 0 else cluster for cluster in clusters)
        pairs = zip(clusters, shares, strict=True)
        columns[f"share{suffix}"] = ["" if cluster < 0 else f"{share:.4f}" for cluster, share in pairs]
    return columns


def _opened(out: Path | TextIO, stack: ExitStack) -> TextIO:
    """Return the file for the lines; a path appears when ``stack`` ends without an error."""
    if not isinstance(out, Path):
        return out
    temporary_path = stack.enter_context(written_whole(out))
    return stack.enter_context(
        temporary_path.open("w", newline="", encoding="utf-8", errors="surrogateescape")
    )


def _tables(features: FeatureSource) -> Iterator[FeatureTable]:
    return (FeatureTable(block, None) for block in features.blocks())
