"""Register the clusterer leiden with ebsc."""

from collections.abc import Iterator

from ebsc_core import ComponentSpec, hookimpl


@hookimpl
def ebsc_clusterers() -> Iterator[ComponentSpec]:
    """Yield the clusterers of this package."""
    yield ComponentSpec(
        "leiden",
        "communities of the affinity by the Leiden algorithm; chooses the number of clusters",
        "ebsc_leiden.clusterer:Leiden",
        reference="Traag, Waltman, van Eck 2019 (arXiv:1810.08473)",
    )
