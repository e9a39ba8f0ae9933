"""What a shell is offered, asked as the shell asks it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "torchvision", "timm", "sklearn", "scipy", "h5py"}
EBSC = "import sys; sys.argv[0] = 'ebsc'; from ebsc_cli.app import main; main()"
BROKEN = """
print("hello")
import sys
print("and more", file=sys.stderr)
raise RuntimeError("no luck")
"""


def asked(*words: str, python: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    """As the function does that bash calls."""
    protocol = {
        "COMP_WORDS": "\n".join(["ebsc", *words]),
        "COMP_CWORD": str(len(words)),
        "_EBSC_COMPLETE": "complete_bash",
    }
    command = [sys.executable, *python, "-c", EBSC]
    return subprocess.run(
        command, env=os.environ | protocol | environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("res",), ["resume"]),
        (("plugins", "sh"), ["show"]),
        (("runs", "--js"), ["--json"]),
        (("run", "--objective", "sim"), ["simclr", "simsiam"]),
        (("run", "--coefficients", "en"), ["energy"]),
        (("run", "--clusterer", "sp"), ["spectral"]),
        (("run", "--backbone", "id"), ["identity"]),
        (("run", "--data", "dig"), ["digits"]),
        (("run", "--data", "photos/"), []),  # bash then offers files
        (("run", "--observer", "tensor"), ["tensorboard"]),
        (("run", "--precision", "f"), ["fp32"]),
        (("run", "--device", "cu"), ["cuda"]),
        (("run", "--set", "train.l"), ["train.lr="]),
        (("cluster", "f.npy", "--set", "search.pro"), ["search.probes="]),
        (("features", "extract", "digits", "--set", "prec"), ["precision="]),
        (("features", "extract", "digits", "--set", "train.l"), []),
        (("run", "--objective", "simclr", "--set", "objective.temp"), ["objective.temperature="]),
        (("plugins", "new", "ob"), ["objective", "observer"]),
    ],
)
def test_names_are_offered(words: tuple[str, ...], offered: list[str]) -> None:
    done = asked(*words)
    assert (done.stdout.split(), done.stderr) == (offered, "")


def test_nothing_heavy_is_imported() -> None:
    log = asked("run", "--clusterer", "", python=("-X", "importtime")).stderr
    imported = set(re.findall(r"\|\s+(\w+)\S*$", log, flags=re.MULTILINE))
    assert "ebsc_plugins" in imported
    assert imported.isdisjoint(HEAVY)


def test_installed_plugins_are_offered_and_broken_ones_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "acme.py").write_text(
        "from ebsc_core import ComponentSpec, hookimpl\n"
        "@hookimpl\n"
        "def ebsc_objectives():\n"
        "    yield ComponentSpec('acme-loss', 'A loss.', 'acme:nothing')\n"
    )
    (tmp_path / "broken.py").write_text(BROKEN)
    for name in ("acme", "broken"):
        info = tmp_path / f"{name}_dist-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-dist\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[ebsc]\n{name} = {name}\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    for strict in ("", "1"):
        done = asked("run", "--objective", "acme", PYTHONPATH=path, EBSC_STRICT_PLUGINS=strict)
        assert (done.stdout.split(), done.stderr) == ([] if strict else ["acme-loss"], "")


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_bash_itself_completes(tmp_path: Path) -> None:
    program = tmp_path / "ebsc"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{EBSC}" "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(_EBSC_COMPLETE=source_bash ebsc)"; COMP_WORDS=(ebsc run --objective sim); COMP_CWORD=3; '
        '_ebsc_completion ebsc; echo "${COMPREPLY[@]}"'
    )
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["simclr", "simsiam"], done.stderr
