"""Register the components of this package.

This module is light on purpose: a component is imported only when a run selects it.
"""

from __future__ import annotations

from collections.abc import Iterator

from ebsc_core import Component, ComponentFamily, ComponentSpec, hookimpl
from ebsc_plugins.datasets.names import TORCHVISION


@hookimpl
def ebsc_datasets() -> Iterator[Component]:
    yield ComponentSpec(
        "digits",
        "scikit-learn's 1,797 handwritten digits, 8x8; no download",
        "ebsc_plugins.datasets.digits:read_digits",
        reference="UCI Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998)",
        default=True,
    )
    for name, dataset in TORCHVISION.items():
        yield ComponentSpec(
            name,
            dataset.summary,
            f"ebsc_plugins.datasets.torchvision_sets:{dataset.reader}",
            options=f"ebsc_plugins.datasets.torchvision_sets:{dataset.options}",
            reference=dataset.reference,
        )
    yield ComponentFamily(
        "folder",
        "a folder of images, by its path; subfolders become classes, for scoring only",
        "ebsc_plugins.datasets.folder:resolve_folder",
        options="ebsc_plugins.datasets.folder:FolderOptions",
    )
    yield ComponentFamily(
        "zip",
        "a zip of images, by its path; read like a folder",
        "ebsc_plugins.datasets.folder:resolve_zip",
        options="ebsc_plugins.datasets.folder:FolderOptions",
    )
    yield ComponentFamily(
        "npz",
        "a NumPy .npz, by its path, with an array `images` and optional `labels`",
        "ebsc_plugins.datasets.npz:resolve_npz",
        options="ebsc_plugins.datasets.npz:NpzOptions",
    )
    yield ComponentFamily(
        "npy",
        "a NumPy .npy, by its path: one array of images",
        "ebsc_plugins.datasets.npy:resolve_npy",
        options="ebsc_plugins.datasets.arrays:ArrayOptions",
    )


@hookimpl
def ebsc_backbones() -> Iterator[Component]:
    yield ComponentSpec(
        "resnet18",
        "ResNet-18 of timm; 3x3 stem without max-pool under 64 px",
        "ebsc_plugins.backbones.timm_models:resnet18",
        options="ebsc_plugins.backbones.timm_models:TimmOptions",
        start="ebsc_plugins.backbones.timm_models:start_of_resnet18",
        reference="arXiv:1512.03385",
        default=True,
    )
    yield ComponentSpec(
        "identity",
        "the raw pixels; no training",
        "ebsc_plugins.backbones.identity:Identity",
        trainable=False,
    )
    yield ComponentSpec(
        "pca",
        "principal components of the raw pixels; no training",
        "ebsc_plugins.backbones.pca:PCA",
        trainable=False,
        reference="Pearson 1901; Hotelling 1933",
    )
    yield ComponentSpec(
        "scattering",
        "wavelet scattering and PCA, as in EnSC and SENet; no training; needs ebsc[scattering]",
        "ebsc_plugins.backbones.scattering:Scattering",
        trainable=False,
        reference="arXiv:1203.1513; You et al. CVPR 2016",
    )
    yield ComponentFamily(
        "timm",
        "any image model of timm by its timm name, e.g. resnet50, convnext_tiny, vit_small_patch16_224",
        "ebsc_plugins.backbones.timm_models:resolve",
        names="ebsc_plugins.backbones.timm_models:names",
        reference="https://github.com/huggingface/pytorch-image-models",
        options="ebsc_plugins.backbones.timm_models:TimmOptions",
    )


@hookimpl
def ebsc_objectives() -> Iterator[Component]:
    yield ComponentSpec(
        "simclr",
        "contrast each image's two views with all other images of the batch (NT-Xent)",
        "ebsc_plugins.objectives.simclr:SimCLR",
        reference="arXiv:2002.05709",
        default=True,
    )
    yield ComponentSpec(
        "byol",
        "predict a momentum teacher's embedding of the other view; no negatives",
        "ebsc_plugins.objectives.byol:BYOL",
        reference="arXiv:2006.07733",
    )
    yield ComponentSpec(
        "moco-v3",
        "identify a momentum teacher's embedding of the other view among those of the batch",
        "ebsc_plugins.objectives.moco_v3:MoCoV3",
        reference="arXiv:2104.02057",
    )
    yield ComponentSpec(
        "simsiam",
        "predict the network's own embedding of the other view, without gradient; no negatives, no teacher",
        "ebsc_plugins.objectives.simsiam:SimSiam",
        reference="arXiv:2011.10566",
    )
    yield ComponentSpec(
        "barlow-twins",
        "bring the views' cross-correlation to the identity: dimensions agree and are not redundant",
        "ebsc_plugins.objectives.barlow_twins:BarlowTwins",
        reference="arXiv:2103.03230",
    )
    yield ComponentSpec(
        "vicreg",
        "make views agree, keep the variance of dimensions, remove their covariances",
        "ebsc_plugins.objectives.vicreg:VICReg",
        reference="arXiv:2105.04906",
    )


@hookimpl
def ebsc_coefficient_models() -> Iterator[Component]:
    yield ComponentSpec(
        "energy",
        "energy network: coefficients as a Gibbs distribution over the dictionary; trainable",
        "ebsc_plugins.coefficients.energy:EnergyNetwork",
        reference="after arXiv:2110.15037",
        default=True,
        whiten="neighbors",
    )
    yield ComponentSpec(
        "knn",
        "cosine neighbours: an untrained baseline for every learned model",
        "ebsc_plugins.coefficients.knn:CosineNeighbors",
    )
    yield ComponentSpec(
        "senet",
        "SENet: soft-thresholded inner products of two networks; trainable, 100,000 steps as published",
        "ebsc_plugins.coefficients.senet:SENet",
        reference="arXiv:2110.04318",
        top_k=1000,
    )
    yield ComponentSpec(
        "elastic-net",
        "EnSC: elastic net of each row over all others, solved exactly by active sets",
        "ebsc_plugins.coefficients.elastic_net:ElasticNet",
        reference="You, Li, Robinson, Vidal, CVPR 2016 (arXiv:1605.02633)",
        top_k=50,
    )
    yield ComponentSpec(
        "omp",
        "SSC-OMP: orthogonal matching pursuit of each row in all others",
        "ebsc_plugins.coefficients.omp:OrthogonalMatchingPursuit",
        reference="You, Robinson, Vidal, CVPR 2016 (arXiv:1507.01238)",
        top_k=10,
    )
    yield ComponentSpec(
        "least-squares",
        "LSR: ridge regression of each row on all others, in closed form",
        "ebsc_plugins.coefficients.least_squares:LeastSquares",
        reference="Lu et al., ECCV 2012 (arXiv:1404.6736)",
    )


@hookimpl
def ebsc_clusterers() -> Iterator[Component]:
    yield ComponentSpec(
        "spectral",
        "k-means on eigenvalue-weighted leading eigenvectors of the affinity",
        "ebsc_plugins.clusterers.spectral:SpectralClustering",
        reference="Ng, Jordan, Weiss 2002; Coifman, Lafon 2006; Zhou et al. 2006",
        default=True,
    )
    yield ComponentSpec(
        "k-subspaces",
        "alternate between assigning rows to subspaces and fitting the subspaces; works on features",
        "ebsc_plugins.clusterers.k_subspaces:KSubspaces",
        reference="Bradley, Mangasarian 2000; Tseng 2000",
    )
    yield ComponentSpec(
        "umap",
        "k-means after UMAP; works on features; needs ebsc[umap]",
        "ebsc_plugins.clusterers.umap:UMAPClustering",
        reference="arXiv:1802.03426",
    )
    yield ComponentFamily(
        "scikit-learn",
        "any clusterer of scikit-learn by its class name, e.g. KMeans, Birch, HDBSCAN",
        "ebsc_plugins.clusterers.scikit_learn:resolve",
        names="ebsc_plugins.clusterers.scikit_learn:names",
        reference="https://scikit-learn.org/stable/modules/clustering.html",
    )


@hookimpl
def ebsc_observers() -> Iterator[Component]:
    yield ComponentSpec(
        "tensorboard",
        "write curves for TensorBoard to a folder beside the run directory; needs ebsc[tensorboard]",
        "ebsc_plugins.observers.tensorboard:TensorBoard",
        reference="https://www.tensorflow.org/tensorboard",
    )
