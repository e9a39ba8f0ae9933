"""Register the coefficient model lrsc with ebsc."""

from collections.abc import Iterator

from ebsc_core import ComponentSpec, hookimpl


@hookimpl
def ebsc_coefficient_models() -> Iterator[ComponentSpec]:
    """Yield the coefficient models of this package."""
    yield ComponentSpec(
        "lrsc",
        "low-rank coefficients in closed form, from the singular vectors of all rows",
        "ebsc_lrsc.coefficients:LowRank",
        reference="Favaro, Vidal, Ravichandran, CVPR 2011; Vidal, Favaro 2014",
    )
