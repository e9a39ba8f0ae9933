"""Our own parts, through the door that is open to anyone's."""

from __future__ import annotations

import atexit
import shutil
import zipfile
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from PIL import Image

from ebsc_core.testing import (
    backbone_checks,
    clusterer_checks,
    coefficient_model_checks,
    dataset_checks,
    objective_checks,
)

PROJECTOR = {"hidden": 8, "width": 5}


@cache
def _scratch() -> Path:
    folder = Path(mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 8, 6, 3), dtype=np.uint8)


@cache
def _npz() -> Path:
    np.savez(_scratch() / "few.npz", images=_pixels(), labels=np.arange(12) % 3)
    return _scratch() / "few.npz"


@cache
def _folder() -> Path:
    for number, pixels in enumerate(_pixels()):
        file = _scratch() / "few" / f"class{number % 3}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    return _scratch() / "few"


@cache
def _zip() -> Path:
    with zipfile.ZipFile(_scratch() / "few.zip", "w") as archive:
        for file in sorted(_folder().rglob("*.png")):
            archive.write(file, file.relative_to(_folder()))
    return _scratch() / "few.zip"


test_digits = dataset_checks("digits")
test_npz = dataset_checks("npz", data=_npz)
test_npz_streamed = dataset_checks("npz", data=_npz, options={"stream": True})
test_folder = dataset_checks("folder", data=_folder, options={"size": 8})
test_folder_streamed = dataset_checks("folder", data=_folder, options={"size": 8, "stream": True})
test_zip = dataset_checks("zip", data=_zip, options={"size": 8})

test_resnet18 = backbone_checks("resnet18")
test_timm = backbone_checks("test_convnext")
test_identity = backbone_checks("identity")
test_pca = backbone_checks("pca", options={"components": 20, "fit_images": 100})
test_scattering = backbone_checks("scattering", options={"components": 20, "fit_images": 50})

test_simclr = objective_checks("simclr", options=PROJECTOR)
test_byol = objective_checks("byol", options=PROJECTOR)
test_moco_v3 = objective_checks("moco-v3", options=PROJECTOR)
test_simsiam = objective_checks("simsiam", options=PROJECTOR)
test_barlow_twins = objective_checks("barlow-twins", options=PROJECTOR)
test_vicreg = objective_checks("vicreg", options=PROJECTOR)

test_energy = coefficient_model_checks("energy", options={"hidden": 16})
test_knn = coefficient_model_checks("knn")
test_knn_weighted = coefficient_model_checks("knn", options={"weighted": True})
test_senet = coefficient_model_checks("senet", options={"hidden": 32, "width": 32})
test_elastic_net = coefficient_model_checks("elastic-net")
test_omp = coefficient_model_checks("omp")
test_least_squares = coefficient_model_checks("least-squares")
test_least_squares_without_self = coefficient_model_checks("least-squares", options={"exclude_self": True})

test_spectral = clusterer_checks("spectral")
test_k_subspaces = clusterer_checks("k-subspaces", options={"dimension": 2})
test_kmeans = clusterer_checks("KMeans")
test_hdbscan = clusterer_checks("HDBSCAN", options={"copy": True})
test_agglomerative = clusterer_checks("AgglomerativeClustering")
test_agglomerative_by_distance = clusterer_checks(
    "AgglomerativeClustering", options={"distance_threshold": 1.0}
)
