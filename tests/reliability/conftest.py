"""Start the process that runs the commands of these tests, once for all of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from support.reliability.commands import Commands

SEED = 20
"""The seed of all samples; another one with ``EBSC_TEST_SEED``."""


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    if sys.platform != "linux":
        pytest.skip("these tests need forks, and memory and files as Linux tells of them")
    with Commands() as started:
        yield started


@pytest.fixture(scope="session")
def seed() -> int:
    return int(os.environ.get("EBSC_TEST_SEED", SEED))
