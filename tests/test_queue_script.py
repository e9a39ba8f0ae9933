"""The script for a queue does what its page says, with stand-ins for the queue's commands."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs/queues.md"
# The first start is stopped and leaves an unfinished run; the second one goes on and finishes it.
EBSC = """#!/bin/sh
echo "$*" >> calls
case "$1" in
run) shift $(($# - 1)); mkdir -p "$1"; touch "$1/unfinished.toml"; exit STATUS;;
resume) rm "$2/unfinished.toml";;
esac
"""


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
@pytest.mark.parametrize(("status", "requeued"), [(143, True), (0, False), (2, False)])
def test_a_job_that_is_stopped_requeues_itself_and_goes_on(
    tmp_path: Path, status: int, requeued: bool
) -> None:
    found = re.search(r"```sh\n(#!/bin/sh\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    programs = {
        "job.sh": found[1],
        "srun": '#!/bin/sh\nexec "$@"\n',
        "scontrol": '#!/bin/sh\necho "scontrol $*" >> calls\n',
        "ebsc": EBSC.replace("STATUS", str(status)),
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}

    def submit() -> int:
        return subprocess.run([tmp_path / "job.sh"], cwd=tmp_path, env=environment).returncode

    assert submit() == status
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0].endswith("--out runs/photos-7")
    assert calls[1:] == ["scontrol requeue 7"] * requeued
    assert submit() == 0
    assert (tmp_path / "calls").read_text().splitlines()[-1] == "resume runs/photos-7"
