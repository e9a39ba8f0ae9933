"""Hash plain values, so that only equal values share a hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def digest(made_from: Mapping[str, Any]) -> str:
    """Return a short hash of plain values that does not depend on the order of keys."""
    text = json.dumps(made_from, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
