"""ebsc: energy-based self-expressive subspace clustering, made of exchangeable parts.

Importing this package is light; names that need torch are loaded when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ebsc_core.config.options import Options
from ebsc_core.plugins.hookspecs import ComponentFamily, ComponentSpec, hookimpl
from ebsc_core.utils.errors import EbscError

if TYPE_CHECKING:
    from ebsc_core.clustering.inner_product import InnerProductModel
    from ebsc_core.data.images.in_memory import ImageSet
    from ebsc_core.data.images.source import ImageSource
    from ebsc_core.estimators.images import EBSC
    from ebsc_core.estimators.rows import EnergySubspaceClustering
    from ebsc_core.plugins.interfaces import (
        Backbone,
        Clusterer,
        CoefficientModel,
        Coefficients,
        DataContext,
        Expression,
        ImageInfo,
        Objective,
        ProjectorOptions,
        TrainableCoefficientModel,
    )

__version__ = "0.1.0"

_LAZY = {
    "Backbone": "ebsc_core.plugins.interfaces",
    "Objective": "ebsc_core.plugins.interfaces",
    "CoefficientModel": "ebsc_core.plugins.interfaces",
    "Coefficients": "ebsc_core.plugins.interfaces",
    "DataContext": "ebsc_core.plugins.interfaces",
    "Expression": "ebsc_core.plugins.interfaces",
    "ImageInfo": "ebsc_core.plugins.interfaces",
    "InnerProductModel": "ebsc_core.clustering.inner_product",
    "ProjectorOptions": "ebsc_core.plugins.interfaces",
    "TrainableCoefficientModel": "ebsc_core.plugins.interfaces",
    "Clusterer": "ebsc_core.plugins.interfaces",
    "ImageSet": "ebsc_core.data.images.in_memory",
    "ImageSource": "ebsc_core.data.images.source",
    "EBSC": "ebsc_core.estimators.images",
    "EnergySubspaceClustering": "ebsc_core.estimators.rows",
}

__all__ = [
    "EBSC",
    "Backbone",
    "Clusterer",
    "CoefficientModel",
    "Coefficients",
    "ComponentFamily",
    "ComponentSpec",
    "DataContext",
    "EbscError",
    "EnergySubspaceClustering",
    "Expression",
    "ImageInfo",
    "ImageSet",
    "ImageSource",
    "InnerProductModel",
    "Objective",
    "Options",
    "ProjectorOptions",
    "TrainableCoefficientModel",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'ebsc_core' has no attribute {name!r}")
