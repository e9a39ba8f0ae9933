"""Build the page of a run and the values of its template."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ebsc_core.curation.graph import graph_of
from ebsc_core.curation.image_files import folder_of_images
from ebsc_core.curation.memberships import sureness
from ebsc_core.curation.tree import Node, tree_of
from ebsc_core.data.images.run_images import RunImages
from ebsc_core.report import charts, formatting
from ebsc_core.report.advice import advice, cluster_count
from ebsc_core.report.clusters import between, describe, ties
from ebsc_core.report.confusion import ClassFigures, compare_with_classes, confusions, natural
from ebsc_core.report.finds import find
from ebsc_core.report.heatmap import heat, table_heat
from ebsc_core.report.how_made import made
from ebsc_core.report.links import link
from ebsc_core.report.map import SIDE, lay_out
from ebsc_core.report.palette import colors
from ebsc_core.report.summary import summary
from ebsc_core.report.thumbnails import Sheet, gallery, read_pictures, sheet
from ebsc_core.runs.store.saved import SavedRun

# Limits: clusters with pictures, pictures of all clusters, least and most pictures of one cluster.
MAX_CLUSTERS, PICTURES, MIN_EACH, MAX_EACH = 100, 1000, 6, 18
# Limits: confusions on the page, and pictures of each.
CONFUSIONS, OF_EACH = 8, 8
# A table with more rows or columns becomes a picture.
LARGEST_TABLE = 25
# Limit of the classes in the list.
MAX_CLASSES = 200
# Limits: ties between clusters on the page, and clusters for which ties are computed (memory grows with the
# square of their number).
MAX_TIES, MAX_DENSE = 10, 2000


class Page:
    """Build the report of one run.

    Parameters
    ----------
    run : SavedRun
    images : RunImages, optional
        The images of the run. Without them, the page has no pictures, and ``why_none`` gives the reason.
    """

    def __init__(self, run: SavedRun, images: RunImages | None, why_none: str = "") -> None:
        self.run, self.images, self.why_none = run, images, why_none
        self.curated, self.metrics = run.curated, run.metrics
        self.assignments = replace(run.assignments, clusters=self.curated.clusters, confidence=sureness(run))
        self.graph = graph_of(run)
        self.k = max(cluster_count(run), int(self.assignments.clusters.max(initial=-1)) + 1)
        wanted = run.config.n_clusters
        self.wanted = wanted if isinstance(wanted, int) else 0
        # After decisions, and if clusters have kept their numbers, some numbers belong to none.
        gaps = bool(self.curated.changed) or "like" in self.metrics
        self.numbers = self.curated.numbers if gaps else list(range(self.k))
        each = max(MIN_EACH, min(MAX_EACH, PICTURES // max(1, min(len(self.numbers), MAX_CLUSTERS))))
        self.between = between(self.graph, self.k) if self.graph and self.k <= MAX_DENSE else None
        self.clusters = describe(self.assignments, self.graph, self.between, each, MAX_CLUSTERS)
        self.comparison = compare_with_classes(self.assignments)
        self.wrong = (
            confusions(self.comparison, self.assignments, CONFUSIONS, OF_EACH) if self.comparison else []
        )
        self.finds = find(run, images)
        self.layout = lay_out(run.rows, self.graph, self.assignments.fitted, run.config.seed)

    def html(self) -> str:
        """Return the whole page."""
        environment = Environment(
            loader=PackageLoader("ebsc_core.report"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
        environment.filters |= {
            "shown": formatting.shown,
            "short": formatting.short,
            "percent": formatting.percent,
            "number": formatting.number,
        }
        style = _part("style.css") + self._colors()
        script = _part("page.js")
        return environment.get_template("page.html.j2").render(
            self._context() | {"style": Markup(style), "script": Markup(script)},
            policy=f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; "
            f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'",
        )

    def _context(self) -> dict[str, Any]:
        layout, k, free = self.layout, len(self.numbers), self.metrics.get("label_free") or {}
        return {
            **summary(self.run, self.assignments, k, self.comparison),
            "advice": advice(
                self.metrics,
                self.assignments,
                cluster_count(self.run),
                layout.rank if layout else None,
                self.run.rows.width,
                self.curated.changed,
                finds_number=self.run.config.n_clusters is None,
            ),
            "why_none": self.why_none if self.images is None else "",
            "has_pictures": bool(self.gallery),
            "clusters": self.clusters,
            "called": self._called,
            "decided": bool(self.curated.changed) or bool(self.curated.by_hand.any()),
            "tree": self._tree(),
            "hidden": max(0, int((np.bincount(self._assigned) > 0).sum()) - len(self.clusters)),
            "picture": self._picture,
            "comparison": self.comparison,
            "class_figures": self._class_figures(),
            "confusion_picture": self._confusion_picture(),
            "wrong": self.wrong,
            "heat": heat(self.graph, self.assignments.confidence[self.graph.positions])
            if self.graph
            else None,
            "numbers": self.numbers,
            "between": self.between if k <= LARGEST_TABLE else None,
            "ties": ties(self.between, MAX_TIES) if self.between is not None else [],
            "finds": self.finds,
            "list_outliers": formatting.command("outliers", self.run.path),
            "list_duplicates": formatting.command("duplicates", self.run.path),
            "map": self._map() if layout else None,
            "components": free.get("connected_components"),
            "training": charts.training_charts(self.metrics.get("training") or []),
            "spectrum": charts.spectrum_charts(self.metrics, self.wanted or self.k),
            "drawing": charts,
            **made(self.run),
        }

    def _called(self, number: int) -> str:
        """Return the number of a cluster and its name, if it has one."""
        name = self.curated.names.get(number)
        return str(number) if name is None else f"{number} {formatting.short(name)}"

    def _tree(self) -> list[tuple[str, Node]]:
        """Return the lines of the tree of clusters; none without affinity, or if there are many clusters."""
        sizes = {cluster.number: cluster.size for cluster in self.clusters}
        if self.graph is None or not 2 <= len(sizes) < MAX_CLUSTERS:
            return []
        return tree_of(self.graph, sizes, self.curated.names).lines()

    @property
    def _assigned(self) -> np.ndarray:
        clusters = self.assignments.clusters[: self.assignments.fitted]
        return clusters[clusters >= 0]

    @cached_property
    def _folder(self) -> Path | None:
        return folder_of_images(self.run)

    @cached_property
    def pictures(self) -> dict[int, Any]:
        """Return every picture of the page by its position."""
        if self.images is None:
            return {}
        mapped = self.layout.positions.tolist() if self.layout else []
        return read_pictures(self.images, self._shown(), mapped)

    @cached_property
    def gallery(self) -> dict[int, str]:
        """Return the pictures of clusters, finds and confusions as data URIs."""
        return gallery({p: self.pictures[p] for p in self._shown() if p in self.pictures})

    def _shown(self) -> list[int]:
        groups = [g for cluster in self.clusters for g in (cluster.typical, cluster.doubtful)]
        groups += [confusion.positions for confusion in self.wrong]
        return list(dict.fromkeys(_joined([*groups, self.finds.positions])))

    def _picture(self, position: int) -> dict[str, Any]:
        """Return the text of the page about an image, and its picture if there is one."""
        assignments, position = self.assignments, int(position)
        label = assignments.labels[position] if assignments.labels else None
        said = [formatting.short(assignments.ids[position])]
        said += [f"class {formatting.short(label)}"] if label is not None else []
        said += [f"confidence {formatting.percent(float(assignments.confidence[position]))}"]
        uri = self.gallery.get(position)
        size = _enlarged(*self.pictures[position].size) if uri else (0, 0)
        href = link(self._folder, assignments.ids[position], self.run.path) if uri else None
        shown = {"uri": uri, "said": ", ".join(said), "name": said[0], "href": href}
        return shown | {"width": size[0], "height": size[1]}

    def _class_figures(self) -> list[ClassFigures]:
        """Return the scores of each class; if there are very many, those of the worst classes."""
        figures = self.comparison.figures if self.comparison else []
        if len(figures) <= MAX_CLASSES:
            return figures
        return sorted(figures, key=lambda one: one.f1)[:MAX_CLASSES]

    def _confusion_picture(self) -> str | None:
        counts = self.comparison.counts if self.comparison else np.zeros((1, 1))
        return table_heat(counts) if max(counts.shape) > LARGEST_TABLE else None

    def _map(self) -> dict[str, Any]:
        """Return the points of the map, for the template and for the script."""
        layout, assignments = self.layout, self.assignments
        assert layout
        labels = self._labels()
        number = {label: i for i, label in enumerate(labels)}
        places = layout.positions.tolist()
        of_label = [number[assignments.labels[p]] if assignments.labels else -1 for p in places]
        clusters = assignments.clusters[layout.positions].tolist()
        rounded = np.rint(layout.points).astype(int).tolist()
        centers = layout.centers(assignments.clusters[layout.positions])
        pictures: Sheet | None = sheet(self.pictures, places)
        return {
            "side": SIDE,
            "points": [(x, y, k, of) for (x, y), k, of in zip(rounded, clusters, of_label, strict=True)],
            "centres": [(k, *rounded[at]) for k, at in centers.items()],
            "of": assignments.fitted,
            "labels": labels,
            "sheet": pictures,
            "data": {
                "names": [formatting.short(assignments.ids[p]) for p in places],
                "called": {number: self._called(number) for number in self.curated.names},
                "confidence": [round(float(assignments.confidence[p]), 3) for p in places],
                "labels": [formatting.short(label) for label in labels],
                "neighbours": layout.neighbors,
                "sheet": {
                    "width": pictures.width,
                    "height": pictures.height,
                    "columns": pictures.columns,
                    "held": pictures.held,
                }
                if pictures
                else None,
            },
        }

    def _labels(self) -> list[str]:
        """Return the classes in natural order; class ``i`` has the style ``l{i}``.

        They include classes that only the fit set has, because the map shows the fit set.
        """
        return sorted(set(self.assignments.labels or []), key=natural)

    def _colors(self) -> str:
        """Return the style rules of cluster and class colours; a class has the colour of its cluster."""
        matched = {name: k for k, name in self.comparison.matched.items()} if self.comparison else {}
        labels = self._labels()
        spare = iter(range(self.k, self.k + len(labels)))
        at = [matched[label] if label in matched else next(spare) for label in labels]
        wheel = colors(max([self.k, *(i + 1 for i in at)]))
        rules = [f".k{k}{{--k:{wheel[k]}}}" for k in self.numbers]
        return "".join(rules + [f".l{i}{{--l:{wheel[k]}}}" for i, k in enumerate(at)])


def _enlarged(width: int, height: int) -> tuple[int, int]:
    """Return the display size of a picture: small pictures grow by a whole factor to about 64 pixels."""
    scale = max(1, round(64 / max(width, height)))
    return width * scale, height * scale


def _joined(groups: Iterable[Iterable[int]]) -> list[int]:
    return [int(position) for group in groups for position in group]


def _part(name: str) -> str:
    return (files("ebsc_core.report") / "templates" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
