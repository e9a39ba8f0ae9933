from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ebsc_plugins.datasets.packed_names import Names

WORDS = st.lists(st.text(st.characters(exclude_categories=["Cs"])))


@given(WORDS)
def test_names_are_a_sequence_of_what_they_were_made_from(words: list[str]) -> None:
    names = Names(words)
    assert isinstance(names, Sequence)
    assert list(names) == words
    assert names[1:-1] == words[1:-1]
    if words:
        assert names[-1] == words[-1]
    with pytest.raises(IndexError):
        names[len(words)]


def test_names_that_are_not_utf8_keep_their_bytes() -> None:
    odd = os.fsdecode(b"caf\xe9.png")
    assert list(Names([odd, ""])) == [odd, ""]


def test_they_take_little() -> None:
    names = Names(f"folder/{i:07}.jpg" for i in range(1000))
    held = [value for value in vars(names).values() if isinstance(value, torch.Tensor)]
    assert sum(value.nbytes for value in held) < 30 * 1000
