"""Pack wheels, ebsc itself and images into one folder, for a GPU machine without a network.

    EBSC_DATA_DIR=… python benchmarks/gpu/pack.py FOLDER [--images cifar10 fashion-mnist mnist]

The machine must have Python 3.12 with torch, torchvision, timm, accelerate, h5py, pluggy, typer, rich,
scikit-learn, jinja2, safetensors, scipy, numba and pytorch-lightning. The script packs CIFAR-10 as the JPEG
files of its two zips and compresses them together, which takes a third of the size.
"""

from __future__ import annotations

import argparse
import io
import lzma
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
# ebsc also needs these wheels; the second list is lightly, for the comparison.
WHEELS = ["pydantic", "typing-extensions", "typing-inspection", "annotated-types", "tomli-w"]
COMPARED = ["lightly", "lightly-utils", "hydra-core", "omegaconf", "aenum"]
PLATFORMS = ["manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"]
SPLITS = {"train": "cifar10-train.zip", "test": "cifar10-test.zip"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", nargs="*", default=["cifar10"], metavar="NAME")
    options = parser.parse_args()
    data = Path(os.environ["EBSC_DATA_DIR"])
    options.folder.mkdir(parents=True, exist_ok=True)
    pack_wheels(options.folder)
    for name in options.images:
        target = options.folder / f"{name}.xz"
        if name == "cifar10":
            target.write_bytes(lzma.compress(members(data), preset=3))
        else:
            target.write_bytes(lzma.compress((data / f"{name}.npz").read_bytes(), preset=0))
    for file in sorted(options.folder.iterdir()):
        print(f"{file.stat().st_size / 2**20:6.1f} MiB  {file.name}")


def pack_wheels(folder: Path) -> None:
    """Download wheels for the other machine, and build the pure Python ones."""
    pip = [sys.executable, "-m", "pip", "-q"]
    target = ["--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]
    target += [word for platform in PLATFORMS for word in ("--platform", platform)]
    core = next(
        line.split("==")[1]
        for line in requirements("pydantic")
        if line.startswith("pydantic-core") or line.startswith("pydantic_core")
    )
    wanted = [*WHEELS, f"pydantic-core=={core}", *COMPARED]
    subprocess.run([*pip, "download", "--no-deps", *target, "-d", folder, *wanted], check=True)
    built = ["antlr4-python3-runtime==4.9.3", str(HERE.parents[1])]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", folder, *built], check=True)


def requirements(name: str) -> list[str]:
    """List the requirements of an installed distribution, as ``name==version`` or another specifier."""
    from importlib.metadata import requires

    return [line.split(";")[0].strip() for line in requires(name) or []]


def members(data: Path) -> bytes:
    """Collect the images of both zips in one tar file: ``train/airplane/0000.jpg`` and so on."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for split, file in SPLITS.items():
            with zipfile.ZipFile(data / file) as archive:
                for name in sorted(archive.namelist()):
                    if not name.endswith("/"):
                        content = archive.read(name)
                        entry = tarfile.TarInfo(f"{split}/{name}")
                        entry.size = len(content)
                        tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


if __name__ == "__main__":
    main()
