"""Arrange the clusters of a run in a tree, by the affinity between them.

The affinity between two clusters, divided by the root of the product of their whole affinities, is 0 if
nothing connects them, and is larger for clusters that rather belong together. Average linkage (Sokal and
Michener, 1958) joins the pair with the largest one, again and again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from ebsc_core.curation.graph import Graph, affinity_between, required_graph
from ebsc_core.runs.store.saved import SavedRun
from ebsc_core.utils.errors import ConfigError

# Memory and time grow with the square of the number of clusters.
MAX_CLUSTERS = 5000


@dataclass(frozen=True)
class Node:
    """Hold a cluster, or a join of two nodes."""

    size: int
    """The number of images."""
    cluster: int | None = None
    """The number of the cluster; None for a join."""
    name: str = ""
    """The name of the cluster; empty if it has none."""
    children: tuple[int, ...] = ()
    """The places of the two joined nodes, the larger one first; empty for a cluster."""
    affinity: float | None = None
    """The affinity, in [0, 1], at which the two are joined; None for a cluster."""

    def __str__(self) -> str:
        if self.cluster is None:
            return f"{100 * (self.affinity or 0):.2f} %, {self.size:,} images"
        return f"{' '.join(filter(None, (str(self.cluster), self.name)))}, {self.size:,} images"


@dataclass(frozen=True)
class ClusterTree:
    """Hold the nodes: the clusters by their numbers, then the joins. The last node is the root."""

    nodes: list[Node]

    def __str__(self) -> str:
        return "\n".join(f"{lead}{node}" for lead, node in self.lines())

    def record(self) -> list[dict[str, Any]]:
        """Return plain values, a table for each node in its place."""
        return [asdict(node) for node in self.nodes]

    def lines(self) -> list[tuple[str, Node]]:
        """Return the nodes from the root down, each with the lines of a text tree that lead to it."""
        found, stack = [], [(len(self.nodes) - 1, "", "")]
        while stack:
            place, lead, below = stack.pop()
            node = self.nodes[place]
            found.append((lead, node))
            for at, child in reversed([*enumerate(node.children)]):
                last = at == len(node.children) - 1
                stack.append((child, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  ")))
        return found

    def order(self) -> list[int]:
        """Return the numbers of the clusters as the tree has them from top to bottom."""
        return [node.cluster for _, node in self.lines() if node.cluster is not None]


def cluster_tree(run: SavedRun) -> ClusterTree:
    """Build the tree of the clusters of a run, after all decisions.

    Raises
    ------
    RunDirectoryError
        If the run has not kept its affinity.
    ConfigError
        If it has no cluster, or more than 5,000.
    """
    curated = run.curated
    return tree_of(required_graph(run, "a tree"), curated.sizes(), curated.names)


def tree_of(graph: Graph, sizes: dict[int, int], names: dict[int, str]) -> ClusterTree:
    """Build the tree of clusters with these numbers and sizes.

    Raises
    ------
    ConfigError
        If there is no cluster, or more than 5,000.
    """
    numbers = sorted(sizes)
    if not 1 <= len(numbers) <= MAX_CLUSTERS:
        raise ConfigError(f"there are {len(numbers)} clusters; a tree needs 1 to {MAX_CLUSTERS}")
    nodes = [Node(sizes[number], number, names.get(number, "")) for number in numbers]
    if len(numbers) == 1:
        return ClusterTree(nodes)
    for first, second, distance, _ in linkage(squareform(1 - _similarity(graph, numbers)), "average"):
        pair = sorted((int(first), int(second)), key=lambda place: (-nodes[place].size, place))
        size = sum(nodes[place].size for place in pair)
        nodes.append(Node(size, children=tuple(pair), affinity=round(1 - float(distance), 6)))
    return ClusterTree(nodes)


def _similarity(graph: Graph, numbers: list[int]) -> np.ndarray:
    """Return the affinity between clusters in [0, 1], ``(K, K)``, with ones on the diagonal."""
    mass = affinity_between(graph, numbers)
    mass = (mass + mass.T) / 2  # float32 sums differ in their last digits
    volume = np.sqrt(mass.sum(axis=1))
    scale = np.outer(volume, volume)
    similarity = np.divide(mass, scale, out=np.zeros_like(mass), where=scale > 0)
    np.fill_diagonal(similarity, 1)
    return np.minimum(similarity, 1)
