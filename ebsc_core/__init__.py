"""Cluster images without labels, by energy-based self-expressive subspace clustering.

The public names below and ``ebsc_core.testing`` are all that a plugin imports, ours included. Importing
this package is light: what a name needs is loaded when the name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ebsc_core.utils.errors import (
    ComponentError,
    ConfigError,
    DataError,
    EbscError,
    PartError,
    fault_of,
    missing_package,
    printable,
    text_of,
)

if TYPE_CHECKING:
    from ebsc_core.clustering.coefficients import exclude_own
    from ebsc_core.clustering.inner_product import InnerProductModel
    from ebsc_core.clustering.spectral.eigenvectors import leading_eigenpairs
    from ebsc_core.clustering.spectral.embedding import (
        effective_power,
        eigenvalue_weights,
        weighted_rows,
    )
    from ebsc_core.clustering.spectral.kmeans import kmeans
    from ebsc_core.config.options import Options
    from ebsc_core.data.features.rows import HeldRows, Rows
    from ebsc_core.data.features.whitening import RidgeInverse, mean_eigenvalue
    from ebsc_core.data.images.arrays import channels_first, opaque_channels, to_uint8
    from ebsc_core.data.images.decoding import (
        ImageHeader,
        common_shape,
        decode_image,
        fit_image,
        image_formats,
        image_suffixes,
        read_header,
    )
    from ebsc_core.data.images.in_memory import ImageSet
    from ebsc_core.data.images.pil import channels_of, eight_bit, is_gray
    from ebsc_core.data.images.source import ImageSource
    from ebsc_core.data.images.streamed import StreamedImages
    from ebsc_core.data.images.workers import BadImage, ImageReader, Workers, unreadable, warn_unreadable
    from ebsc_core.estimators.images import EBSC
    from ebsc_core.estimators.rows import EnergySubspaceClustering
    from ebsc_core.plugins.hookspecs import (
        BackboneStart,
        Component,
        ComponentFamily,
        ComponentSpec,
        EpochFinished,
        RunFailed,
        RunFinished,
        RunStarted,
        StageFinished,
        hookimpl,
    )
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
        Views,
        projector,
    )
    from ebsc_core.utils.cosines import related
    from ebsc_core.utils.device import has_bf16
    from ebsc_core.utils.distributed import DistributedContext
    from ebsc_core.utils.matmul import PackedRows
    from ebsc_core.utils.npy import ArrayHeader, read_array_header
    from ebsc_core.utils.sampling import sample_positions

__version__ = "0.1.0"

# Where the names are that are loaded when first used.
_LAZY = {
    "exclude_own": "ebsc_core.clustering.coefficients",
    "InnerProductModel": "ebsc_core.clustering.inner_product",
    "leading_eigenpairs": "ebsc_core.clustering.spectral.eigenvectors",
    "effective_power": "ebsc_core.clustering.spectral.embedding",
    "eigenvalue_weights": "ebsc_core.clustering.spectral.embedding",
    "weighted_rows": "ebsc_core.clustering.spectral.embedding",
    "kmeans": "ebsc_core.clustering.spectral.kmeans",
    "Options": "ebsc_core.config.options",
    "related": "ebsc_core.utils.cosines",
    "HeldRows": "ebsc_core.data.features.rows",
    "Rows": "ebsc_core.data.features.rows",
    "RidgeInverse": "ebsc_core.data.features.whitening",
    "mean_eigenvalue": "ebsc_core.data.features.whitening",
    "channels_first": "ebsc_core.data.images.arrays",
    "opaque_channels": "ebsc_core.data.images.arrays",
    "to_uint8": "ebsc_core.data.images.arrays",
    "ImageHeader": "ebsc_core.data.images.decoding",
    "common_shape": "ebsc_core.data.images.decoding",
    "decode_image": "ebsc_core.data.images.decoding",
    "fit_image": "ebsc_core.data.images.decoding",
    "image_formats": "ebsc_core.data.images.decoding",
    "image_suffixes": "ebsc_core.data.images.decoding",
    "read_header": "ebsc_core.data.images.decoding",
    "ImageSet": "ebsc_core.data.images.in_memory",
    "channels_of": "ebsc_core.data.images.pil",
    "eight_bit": "ebsc_core.data.images.pil",
    "is_gray": "ebsc_core.data.images.pil",
    "ImageSource": "ebsc_core.data.images.source",
    "StreamedImages": "ebsc_core.data.images.streamed",
    "BadImage": "ebsc_core.data.images.workers",
    "ImageReader": "ebsc_core.data.images.workers",
    "Workers": "ebsc_core.data.images.workers",
    "unreadable": "ebsc_core.data.images.workers",
    "warn_unreadable": "ebsc_core.data.images.workers",
    "EBSC": "ebsc_core.estimators.images",
    "EnergySubspaceClustering": "ebsc_core.estimators.rows",
    "BackboneStart": "ebsc_core.plugins.hookspecs",
    "Component": "ebsc_core.plugins.hookspecs",
    "ComponentFamily": "ebsc_core.plugins.hookspecs",
    "ComponentSpec": "ebsc_core.plugins.hookspecs",
    "EpochFinished": "ebsc_core.plugins.hookspecs",
    "RunFailed": "ebsc_core.plugins.hookspecs",
    "RunFinished": "ebsc_core.plugins.hookspecs",
    "RunStarted": "ebsc_core.plugins.hookspecs",
    "StageFinished": "ebsc_core.plugins.hookspecs",
    "hookimpl": "ebsc_core.plugins.hookspecs",
    "Backbone": "ebsc_core.plugins.interfaces",
    "Clusterer": "ebsc_core.plugins.interfaces",
    "CoefficientModel": "ebsc_core.plugins.interfaces",
    "Coefficients": "ebsc_core.plugins.interfaces",
    "DataContext": "ebsc_core.plugins.interfaces",
    "Expression": "ebsc_core.plugins.interfaces",
    "ImageInfo": "ebsc_core.plugins.interfaces",
    "Objective": "ebsc_core.plugins.interfaces",
    "ProjectorOptions": "ebsc_core.plugins.interfaces",
    "TrainableCoefficientModel": "ebsc_core.plugins.interfaces",
    "Views": "ebsc_core.plugins.interfaces",
    "projector": "ebsc_core.plugins.interfaces",
    "has_bf16": "ebsc_core.utils.device",
    "DistributedContext": "ebsc_core.utils.distributed",
    "PackedRows": "ebsc_core.utils.matmul",
    "ArrayHeader": "ebsc_core.utils.npy",
    "read_array_header": "ebsc_core.utils.npy",
    "sample_positions": "ebsc_core.utils.sampling",
}

__all__ = [
    "EBSC",
    "ArrayHeader",
    "Backbone",
    "BackboneStart",
    "BadImage",
    "Clusterer",
    "CoefficientModel",
    "Coefficients",
    "Component",
    "ComponentError",
    "ComponentFamily",
    "ComponentSpec",
    "ConfigError",
    "DataContext",
    "DataError",
    "DistributedContext",
    "EbscError",
    "EnergySubspaceClustering",
    "EpochFinished",
    "Expression",
    "HeldRows",
    "ImageHeader",
    "ImageInfo",
    "ImageReader",
    "ImageSet",
    "ImageSource",
    "InnerProductModel",
    "Objective",
    "Options",
    "PackedRows",
    "PartError",
    "ProjectorOptions",
    "RidgeInverse",
    "Rows",
    "RunFailed",
    "RunFinished",
    "RunStarted",
    "StageFinished",
    "StreamedImages",
    "TrainableCoefficientModel",
    "Views",
    "Workers",
    "channels_first",
    "channels_of",
    "common_shape",
    "decode_image",
    "effective_power",
    "eigenvalue_weights",
    "eight_bit",
    "exclude_own",
    "fault_of",
    "fit_image",
    "has_bf16",
    "hookimpl",
    "image_formats",
    "image_suffixes",
    "is_gray",
    "kmeans",
    "leading_eigenpairs",
    "mean_eigenvalue",
    "missing_package",
    "opaque_channels",
    "printable",
    "projector",
    "read_array_header",
    "read_header",
    "related",
    "sample_positions",
    "text_of",
    "to_uint8",
    "unreadable",
    "warn_unreadable",
    "weighted_rows",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'ebsc_core' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
