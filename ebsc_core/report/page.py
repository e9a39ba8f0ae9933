"""From a run to its page: what the template is given."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from functools import cached_property
from hashlib import sha256
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ebsc_core.data.images.run_images import RunImages
from ebsc_core.report import charts, formatting
from ebsc_core.report.advice import advice
from ebsc_core.report.clusters import between, describe, graph_of, ties
from ebsc_core.report.confusion import ClassFigures, compare, confusions
from ebsc_core.report.heatmap import heat, table_heat
from ebsc_core.report.how_made import made
from ebsc_core.report.map import SIDE, lay_out
from ebsc_core.report.palette import colors
from ebsc_core.report.summary import summary
from ebsc_core.report.thumbnails import Sheet, gallery, read_pictures, sheet
from ebsc_core.runs.store.saved import SavedRun

# Clusters that are shown with pictures, and pictures of them in all; of one, at least and at most.
MAX_CLUSTERS, PICTURES, MIN_EACH, MAX_EACH = 100, 1000, 6, 18
# Ways to go wrong that are shown, and pictures of each.
CONFUSIONS, OF_EACH = 8, 8
# Tables with more rows or columns become a picture.
LARGEST_TABLE = 25
# Classes that are listed.
MAX_CLASSES = 200
# Ties between clusters that are named; of more clusters none are, which would take their square.
MAX_TIES, MAX_DENSE = 10, 2000


class Page:
    """The report of one run.

    Parameters
    ----------
    run : SavedRun
    images : RunImages, optional
        Without, there are no pictures, and ``why_none`` says why.
    """

    def __init__(self, run: SavedRun, images: RunImages | None, why_none: str = "") -> None:
        self.run, self.images, self.why_none = run, images, why_none
        self.found, self.metrics = run.assignments, run.metrics
        self.graph = graph_of(run)
        present = self.found.clusters[self.found.clusters >= 0]
        wanted = run.config.n_clusters
        self.k = max(wanted if isinstance(wanted, int) else 0, int(present.max(initial=-1)) + 1)
        each = max(MIN_EACH, min(MAX_EACH, PICTURES // max(1, min(self.k, MAX_CLUSTERS))))
        self.between = between(self.graph, self.k) if self.graph and self.k <= MAX_DENSE else None
        self.clusters = describe(run, self.graph, self.between, each, MAX_CLUSTERS)
        self.comparison = compare(self.found)
        self.wrong = confusions(self.comparison, self.found, CONFUSIONS, OF_EACH) if self.comparison else []
        self.layout = lay_out(run.rows, self.graph, self.found.fitted, run.config.seed)

    def html(self) -> str:
        """The whole page."""
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
        layout, k, free = self.layout, self.k, self.metrics.get("label_free") or {}
        return {
            **summary(self.run, self.k, self.comparison),
            "advice": advice(
                self.metrics, self.found, k, layout.rank if layout else None, self.run.rows.width
            ),
            "why_none": self.why_none if self.images is None else "",
            "has_pictures": bool(self.gallery),
            "clusters": self.clusters,
            "hidden": max(0, int((np.bincount(self._assigned) > 0).sum()) - len(self.clusters)),
            "picture": self._picture,
            "comparison": self.comparison,
            "class_figures": self._class_figures(),
            "confusion_picture": self._confusion_picture(),
            "wrong": self.wrong,
            "heat": heat(self.graph, self.found.confidence[self.graph.positions]) if self.graph else None,
            "between": self.between if k <= LARGEST_TABLE else None,
            "ties": ties(self.between, MAX_TIES) if self.between is not None else [],
            "map": self._map() if layout else None,
            "components": free.get("connected_components"),
            "training": charts.training_charts(self.metrics.get("training") or []),
            "spectrum": charts.spectrum_charts(self.metrics, k),
            "drawing": charts,
            **made(self.run),
        }

    @property
    def _assigned(self) -> np.ndarray:
        clusters = self.found.clusters[: self.found.fitted]
        return clusters[clusters >= 0]

    @cached_property
    def pictures(self) -> dict[int, Any]:
        """Every picture of the page, by its position."""
        if self.images is None:
            return {}
        mapped = self.layout.positions.tolist() if self.layout else []
        return read_pictures(self.images, self._shown(), mapped)

    @cached_property
    def gallery(self) -> dict[int, str]:
        """Those of clusters and mistakes, as data URIs."""
        return gallery({p: self.pictures[p] for p in self._shown() if p in self.pictures})

    def _shown(self) -> list[int]:
        groups = [g for cluster in self.clusters for g in (cluster.typical, cluster.doubtful)]
        return list(dict.fromkeys(_joined([*groups, *(confusion.positions for confusion in self.wrong)])))

    def _picture(self, position: int) -> dict[str, Any]:
        """What the page says of an image, and its picture if there is one."""
        found, position = self.found, int(position)
        label = found.labels[position] if found.labels else None
        said = [formatting.short(found.ids[position])]
        said += [f"class {formatting.short(label)}"] if label is not None else []
        said += [f"confidence {formatting.percent(float(found.confidence[position]))}"]
        uri = self.gallery.get(position)
        size = _enlarged(*self.pictures[position].size) if uri else (0, 0)
        return {"uri": uri, "said": ", ".join(said), "name": said[0], "width": size[0], "height": size[1]}

    def _class_figures(self) -> list[ClassFigures]:
        """Those of each class; of very many, the ones found worst."""
        figures = self.comparison.figures if self.comparison else []
        if len(figures) <= MAX_CLASSES:
            return figures
        return sorted(figures, key=lambda one: one.f1)[:MAX_CLASSES]

    def _confusion_picture(self) -> str | None:
        counts = self.comparison.counts if self.comparison else np.zeros((1, 1))
        return table_heat(counts) if max(counts.shape) > LARGEST_TABLE else None

    def _map(self) -> dict[str, Any]:
        """The points of the map, for the page to draw and for its script."""
        layout, found = self.layout, self.found
        assert layout
        labels = self._labels()
        number = {label: i for i, label in enumerate(labels)}
        places = layout.positions.tolist()
        of_label = [number[found.labels[p]] if found.labels else -1 for p in places]
        clusters = found.clusters[layout.positions].tolist()
        rounded = np.rint(layout.points).astype(int).tolist()
        centers = layout.centers(found.clusters[layout.positions])
        pictures: Sheet | None = sheet(self.pictures, places)
        return {
            "side": SIDE,
            "points": [(x, y, k, of) for (x, y), k, of in zip(rounded, clusters, of_label, strict=True)],
            "centres": [(k, *rounded[at]) for k, at in centers.items()],
            "of": found.fitted,
            "labels": labels,
            "sheet": pictures,
            "data": {
                "names": [formatting.short(found.ids[p]) for p in places],
                "confidence": [round(float(found.confidence[p]), 3) for p in places],
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
        """Classes, those with a cluster in its place, so that colours agree."""
        return [figures.name for figures in self.comparison.figures] if self.comparison else []

    def _colors(self) -> str:
        """The colours of clusters and classes; a class has the colour of the cluster it is matched to."""
        matched = {name: k for k, name in self.comparison.matched.items()} if self.comparison else {}
        labels = self._labels()
        spare = iter(range(self.k, self.k + len(labels)))
        at = [matched[label] if label in matched else next(spare) for label in labels]
        wheel = colors(max([self.k, *(i + 1 for i in at)]))
        rules = [f".k{k}{{--k:{wheel[k]}}}" for k in range(self.k)]
        return "".join(rules + [f".l{i}{{--l:{wheel[k]}}}" for i, k in enumerate(at)])


def _enlarged(width: int, height: int) -> tuple[int, int]:
    """Small pictures as so many whole screen pixels each that they are about 64 wide."""
    scale = max(1, round(64 / max(width, height)))
    return width * scale, height * scale


def _joined(groups: Iterable[np.ndarray]) -> list[int]:
    return [int(position) for group in groups for position in group]


def _part(name: str) -> str:
    return (files("ebsc_core.report") / "templates" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
