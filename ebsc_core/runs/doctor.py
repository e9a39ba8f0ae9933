"""Say what a run would find on this machine, try whether a small run works, and verify finished runs.

Everything is looked for where a run looks for it. Whatever is missing or broken is a finding; nothing that is
raised on the way ends the examination.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path

from ebsc_core.config.loading import load_config
from ebsc_core.plugins.installed import OWN_DISTRIBUTION
from ebsc_core.plugins.registry import Registry
from ebsc_core.utils.errors import EbscError, shortened, told
from ebsc_core.utils.provenance import cuda_build
from ebsc_core.utils.system import available_memory, processors

OK, NOTE, FAILED = "ok", "note", "failed"
# Less free disk space than this is worth a note: the features of a million images take twice as much.
LITTLE_DISK = 2 << 30
GIB = 1 << 30
# Precision is chosen for images like those of a run on small photographs.
SIDE = 32
# All stages of a run, in seconds.
SELF_TEST = {
    "data.limit": 120,
    "train.epochs": 2,
    "train.batch_size": 40,
    "joint.form": "reconstruction",
    "joint.start": 0.5,
    "refine.steps": 20,
    "cache": "none",
}


@dataclass(frozen=True)
class Finding:
    """Hold one line of the examination."""

    topic: str
    status: str
    """``ok``, ``note`` (a run works without it), or ``failed``."""
    text: str


def examine(runs: Iterable[Path] = ()) -> Iterator[Finding]:
    """Examine these run directories or, without any, the machine: cheap things first, the self-test last."""
    looked_at: dict[str, Callable[[], Found]] = {str(run): partial(_run, run) for run in runs}
    for topic, look in (looked_at or LOOKED_AT).items():
        found = []
        try:
            for line in look():
                found.append(line)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a stranger's, or of a package that is broken
            found.append((FAILED, str(error) if isinstance(error, EbscError) else told(error)))
        for status, text in found:
            yield Finding(topic, status, text)


Found = Iterable[tuple[str, str]]


def _run(path: Path) -> Found:
    from ebsc_core.runs.store.verify import verify

    return verify(path)


def _installed() -> Found:
    yield OK, f"Python {platform.python_version()} on {platform.platform()}"
    for requirement, _, problem in _requirements(""):
        if problem:
            yield FAILED, f"{requirement}: {problem}; pip install '{requirement}'"
    yield OK, f"ebsc {version(OWN_DISTRIBUTION)}, torch {version('torch')} ({cuda_build()})"


def _extras() -> Found:
    """Return the extras that the distribution declares."""
    for extra in sorted(metadata(OWN_DISTRIBUTION).get_all("Provides-Extra") or []):
        needed = list(_requirements(extra))
        missing = [f"{name} ({problem})" for _, name, problem in needed if problem]
        if missing:
            yield NOTE, f"{extra}: {', '.join(missing)}; pip install 'ebsc[{extra}]'"
        else:
            yield OK, f"{extra}: {', '.join(f'{name} {version(name)}' for _, name, _ in needed)}"


def _requirements(extra: str) -> Iterator[tuple[str, str, str]]:
    """Yield each requirement of ebsc or of an extra, its name, and its fault if it has one."""
    from packaging.requirements import Requirement

    for text in metadata(OWN_DISTRIBUTION).get_all("Requires-Dist") or []:
        needed = Requirement(text)
        always = needed.marker is None or needed.marker.evaluate({"extra": ""})
        chosen = needed.marker is None or needed.marker.evaluate({"extra": extra})
        if not chosen or (extra and always):
            continue
        try:
            found = version(needed.name)
            fits = needed.specifier.contains(found, prereleases=True)
            problem = "" if fits else f"{found} is installed"
        except PackageNotFoundError:
            problem = "not installed"
        yield f"{needed.name}{needed.specifier}", needed.name, problem


def _devices() -> Found:
    import torch

    from ebsc_core.utils.device import describe_device, has_bf16, resolve_device

    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device = torch.device("cuda", index)
        free, total = torch.cuda.mem_get_info(device)
        bf16 = "bf16" if has_bf16(device) else "no bf16"
        yield OK, f"{describe_device(device)}, {free / GIB:.0f} of {total / GIB:.0f} GiB free, {bf16}"
    if torch.backends.mps.is_available():
        yield OK, "mps (Metal)"
    cpu = torch.device("cpu")
    yield OK, f"{describe_device(cpu)}, {'bf16' if has_bf16(cpu) else 'no bf16'}"
    yield OK, f"`device=auto` takes {resolve_device('auto')}"


def _precision() -> Found:
    from ebsc_core.training.precision import choose_precision
    from ebsc_core.utils.device import resolve_device

    _, reason = choose_precision("auto", resolve_device("auto"), SIDE)
    yield OK, f"`precision=auto` takes {reason} (on {SIDE}x{SIDE} images)"


def _threads() -> Found:
    import torch

    asked = os.environ.get("OMP_NUM_THREADS")
    told_to = f" (OMP_NUM_THREADS={asked})" if asked else ""
    threads, cores = torch.get_num_threads(), processors()
    status = NOTE if threads > cores else OK
    more = ": more than that make one another wait" if threads > cores else ""
    yield status, f"{threads}{told_to}, {cores} processors may be used{more}"


def _memory() -> Found:
    free = available_memory()
    yield OK, "this system does not say" if free is None else f"{free / GIB:.1f} GiB can be had"


def _disk() -> Found:
    from ebsc_core.utils.paths import features_folder, user_cache

    named = {"cache": features_folder(None), "named data": user_cache() / "data", "temporary files": None}
    for name, folder in named.items():
        path = (folder or Path(tempfile.gettempdir())).absolute()
        there = next(parent for parent in (path, *path.parents) if parent.exists())
        free = shutil.disk_usage(there).free
        problem = ""
        if not os.access(there, os.W_OK):
            problem = f": {there} cannot be written"
        elif free < LITTLE_DISK:
            problem = ": that is little"
        yield NOTE if problem else OK, f"{name}: {free / GIB:.1f} GiB free for {path}{problem}"


def _plugins() -> Found:
    registry = Registry()
    for plugin in registry.plugins:
        if plugin.status == "ok":
            yield OK, str(plugin)
        elif plugin.status == "slow":
            yield NOTE, f"{plugin}: takes {plugin.seconds:.1f} s to load"
        else:
            yield FAILED, f"{plugin}: {shortened(plugin.reason)}"
    for conflict in registry.conflicts():
        yield NOTE, conflict


def _self_test() -> Found:
    from ebsc_core.runs.run import run
    from ebsc_core.runs.store.saved import SavedRun
    from ebsc_core.utils.progress import Progress

    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="ebsc-doctor-") as folder:
        result = run(load_config(flags={**SELF_TEST, "out": f"{folder}/run"}), Registry(), Progress())
        if result is None:  # another of several processes writes
            return
        images = len(SavedRun(result.directory).assignments.ids)
    seconds = time.perf_counter() - began
    yield OK, f"a run on {images} images of the default data, from training to clusters, took {seconds:.0f} s"


LOOKED_AT: dict[str, Callable[[], Found]] = {
    "installed": _installed,
    "extras": _extras,
    "plugins": _plugins,
    "devices": _devices,
    "precision": _precision,
    "threads": _threads,
    "memory": _memory,
    "disk": _disk,
    "self-test": _self_test,
}
