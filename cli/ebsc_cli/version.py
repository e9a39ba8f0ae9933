"""Implement ``ebsc --version``: print installed versions, one per line, from metadata alone."""

from __future__ import annotations

import typer

SHOWN = ("torch", "torchvision", "timm", "scikit-learn", "h5py", "pluggy")


def show_version(asked: bool) -> None:
    """Print the versions and exit, if the user asked for them."""
    if not asked:
        return
    import platform

    from ebsc_core.utils.provenance import cuda_build, versions

    installed = versions()
    print(f"ebsc {installed.get('ebsc', 'unknown')}")
    print(f"Python {platform.python_version()}")
    for name in SHOWN:
        build = cuda_build() if name == "torch" and name in installed else None
        print(f"{name} {installed.get(name, 'not installed')}" + (f" ({build})" if build else ""))
    raise typer.Exit
