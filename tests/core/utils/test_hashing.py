from __future__ import annotations

from ebsc_core.utils.hashing import digest


def test_digest_ignores_the_order_of_keys_at_every_depth() -> None:
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest({"a": [1, 2]}) != digest({"a": [2, 1]})
