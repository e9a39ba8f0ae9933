"""Ask the hub of Hugging Face for weights only if it can be reached."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants

SECONDS = 5.0


@contextmanager
def cache_alone_without_network() -> Iterator[bool]:
    """Let the client of the hub look only into its cache inside the block if the hub cannot be reached.

    Otherwise it would try again and again, for a minute or more. Yields whether it looks only there.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _reachable()
    try:
        yield constants.HF_HUB_OFFLINE
    finally:
        constants.HF_HUB_OFFLINE = before


def _reachable() -> bool:
    if getproxies():  # then the name need not be known here
        return True
    hub = urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((hub.hostname or "", hub.port or 443), timeout=SECONDS).close()
    except OSError:
        return False
    return True
