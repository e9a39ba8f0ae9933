"""Makes the clusterer leiden known to ebsc."""

from collections.abc import Iterator

from ebsc_core import ComponentSpec, hookimpl


@hookimpl
def ebsc_clusterers() -> Iterator[ComponentSpec]:
    """The clusterers of this package."""
    yield ComponentSpec(
        "leiden",
        "communities of the affinity by the Leiden algorithm; finds how many there are",
        "ebsc_leiden.clusterer:Leiden",
        reference="Traag, Waltman, van Eck 2019 (arXiv:1810.08473)",
    )
