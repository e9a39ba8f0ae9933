"""Compute the positions of lines in charts; the page draws them in its colours, with a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import floor, log10
from typing import Any

# Size and margins of the drawing in its own units; the page scales it.
WIDTH, HEIGHT = 480, 240
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 22, 44


# For each figure of an epoch: its name, a title, a note, and whether its axis begins at zero.
EPOCHS = (
    ("loss", "Loss of the objective", "It should fall, and level off.", False),
    (
        "effective_rank",
        "Effective rank of the representation",
        "The number of directions that the representation uses. A steep fall is a collapse.",
        True,
    ),
    (
        "joint_error",
        "Error of images expressed by other images",
        "The squared error in the joint phase. A value near zero from the start indicates a collapse.",
        True,
    ),
)


@dataclass(frozen=True)
class Series:
    """Hold a named line."""

    name: str
    values: list[float]
    """The values of the line, one for each x value of the chart."""
    points: list[tuple[float, float]]
    """The points of the line in the drawing."""

    @property
    def path(self) -> str:
        return " ".join(f"{x:g},{y:g}" for x, y in self.points)


@dataclass(frozen=True)
class Chart:
    """Hold one line chart."""

    id: str
    title: str
    said: str
    """The sentence that describes the chart."""
    x_label: str
    x_values: list[int]
    series: list[Series]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    bands: list[tuple[float, float, str]] = field(default_factory=list)
    """The highlighted parts of the x axis: start, width, name."""
    dots: bool = False


def line_chart(
    id: str,
    title: str,
    said: str,
    x_label: str,
    x_values: Sequence[int],
    lines: Mapping[str, Sequence[float]],
    bands: Sequence[tuple[float, float, str]] = (),
    from_zero: bool = False,
    dots: bool = False,
) -> Chart:
    """Build a chart of lines over whole numbers.

    Parameters
    ----------
    bands : sequence of (from, to, name)
        The highlighted ranges, in units of x.
    from_zero : bool
        Whether the y axis begins at zero.
    """
    values = [value for line in lines.values() for value in line]
    low, high = min(values), max(values)
    y_ticks = ticks(min(low, 0.0) if from_zero else low, high)
    low, high = min(low, y_ticks[0]), max(high, y_ticks[-1])
    first, last = x_values[0], x_values[-1]

    def x(value: float) -> float:
        share = (value - first) / (last - first) if last > first else 0.5
        return round(LEFT + (WIDTH - LEFT - RIGHT) * share, 1)

    def y(value: float) -> float:
        share = (value - low) / (high - low) if high > low else 0.5
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - share), 1)

    series = [
        Series(name, list(line), [(x(a), y(b)) for a, b in zip(x_values, line, strict=True)])
        for name, line in lines.items()
    ]
    return Chart(
        id=id,
        title=title,
        said=said,
        x_label=x_label,
        x_values=list(x_values),
        series=series,
        x_ticks=[(x(tick), f"{tick:g}") for tick in _whole_ticks(first, last)],
        y_ticks=[(y(tick), f"{tick:g}") for tick in y_ticks],
        bands=[(x(a), round(x(b) - x(a), 1), name) for a, b, name in bands],
        dots=dots or len(x_values) < 3,
    )


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return about ``most`` round values that enclose ``low`` and ``high``."""
    # The labels of ticks could not show a smaller extent.
    extent = max(high - low, 1e-4 * max(abs(low), abs(high)), 1e-9)
    raw = extent / (most - 1)
    power = 10.0 ** floor(log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    start, end = floor(low / step + 1e-9), -floor(-high / step + 1e-9)
    digits = max(0, 3 - floor(log10(step)))
    return [round(i * step, digits) for i in range(start, max(end, start + 1) + 1)]


def _whole_ticks(first: int, last: int) -> list[int]:
    """Return the first value, and round values at a distance from it."""
    found = [int(tick) for tick in ticks(first, last, 9) if tick == int(tick)]
    return [first, *(tick for tick in found if first + (last - first) / 12 < tick <= last)]


def training_charts(history: Sequence[dict[str, Any]]) -> list[Chart]:
    """Return charts of the figures of each epoch, as far as the run recorded them."""
    epochs = list(enumerate(history, start=1))
    joint = [number for number, epoch in epochs if epoch.get("stage") == "joint"]
    found = []
    for name, title, said, from_zero in EPOCHS:
        known = [(number, epoch[name]) for number, epoch in epochs if epoch.get(name) is not None]
        if not known:
            continue
        numbers, values = [number for number, _ in known], [value for _, value in known]
        # A figure that exists only in the joint phase needs no band.
        banded = len(joint) > 1 and numbers[0] < joint[0]
        found.append(
            line_chart(
                name.replace("_", "-"),
                title,
                f"From {values[0]:.3g} to {values[-1]:.3g}. {said}",
                "epoch",
                numbers,
                {name.replace("_", " "): values},
                [(joint[0], joint[-1], "joint phase")] if banded else [],
                from_zero,
            )
        )
    return found


def spectrum_charts(metrics: Mapping[str, Any], k: int) -> list[Chart]:
    """Return charts about the number of clusters: the eigenvalues, and the numbers that the run tried."""
    eigenvalues = eigenvalue_chart(metrics.get("eigenvalues") or [], k)
    return ([eigenvalues] if eigenvalues else []) + candidate_charts(metrics.get("n_clusters"))


def eigenvalue_chart(eigenvalues: Sequence[float], k: int) -> Chart | None:
    """Return a chart of the eigenvalues of the normalised affinity, with the gap after the k-th."""
    shown = list(eigenvalues[: max(3 * k, 12)])
    if len(shown) < 2:
        return None
    said, bands = f"The {len(shown)} largest eigenvalues, from {shown[0]:.4g} to {shown[-1]:.4g}.", []
    if k < len(shown):
        bands = [(k, k + 1, "gap")]
        said += f" After number {k} they fall by {shown[k - 1] - shown[k]:.4f}."
    x = range(1, len(shown) + 1)
    return line_chart(
        "eigenvalues",
        "Eigenvalues of the affinity",
        said,
        "eigenvalue",
        x,
        {"eigenvalue": shown},
        bands,
        dots=True,
    )


def candidate_charts(choice: Any) -> list[Chart]:
    """Return charts of the scores of each number of clusters, if the run chose among several."""
    if not isinstance(choice, dict) or not choice.get("candidates"):
        return []
    candidates = [c for c in choice["candidates"] if isinstance(c, dict) and isinstance(c.get("k"), int)]
    candidates.sort(key=lambda candidate: candidate["k"])
    chosen, charts = choice.get("chosen"), []
    for name, said in (
        ("score", "The score decides. It combines the stability with that of the better neighbour."),
        ("stability", "The similarity of the clusters when the affinity is perturbed."),
        ("eigengap", "The drop from the eigenvalue of this number to the next one."),
    ):
        known = [c for c in candidates if isinstance(c.get(name), int | float)]
        if len(known) > 1:
            x = [candidate["k"] for candidate in known]
            marked = f" {chosen} was chosen." if chosen is not None else ""
            bands = [(at - 0.3, at + 0.3, "chosen") for at in x if at == chosen]
            values = [float(candidate[name]) for candidate in known]
            title = f"{name.capitalize()} by number of clusters"
            charts.append(
                line_chart(f"k-{name}", title, said + marked, "clusters", x, {name: values}, bands, dots=True)
            )
    return charts
