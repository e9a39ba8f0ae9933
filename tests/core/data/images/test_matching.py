"""Each row gets the picture of its own name, or none."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ebsc_core.data.images.matching import match_names

NAMES = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.text("aäß.é0Z", min_size=1, max_size=4)).map("/".join),
    min_size=1,
    max_size=12,
    unique_by=lambda name: unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()),
).filter(lambda names: not any(name.endswith(("/.", "/..")) for name in names))


@pytest.mark.parametrize(
    ("rows", "images", "expected"),
    [
        (["b.png", "a.png"], ["a.png", "b.png", "c.png"], [1, 0]),
        (["pics/07.png", "pics/08.png"], ["07.png", "08.png"], [0, 1]),
        (["/home/me/pics/x/07.png", "/home/me/pics/y/07.png"], ["x/07.png", "y/07.png"], [0, 1]),
        (["07.png"], ["deep/er/07.png", "deep/er/08.png"], [0]),
        (["./x//07.png", "x\\08.png"], ["x/07.png", "x/08.png"], [0, 1]),
        (["a.PNG", "b.png"], ["A.png", "b.png"], [0, 1]),
        ([unicodedata.normalize("NFD", "é.png")], [unicodedata.normalize("NFC", "é.png")], [0]),
        (["7", "8"], ["7.png", "8.png"], [0, 1]),
        (["a.png", "a.png"], ["a.png", "b.png"], [0, 0]),
        # never a picture that may be another row's
        (["x/1.png", "y/1.png"], ["1.png", "2.png"], [-1, -1]),
        (["1.png"], ["x/1.png", "y/1.png"], [-1]),
        (["A.png"], ["a.png", "a.PNG"], [-1]),
        (["7", "7.png"], ["7.png", "8.png"], [-1, 0]),
        (["7.png", "7.PNG"], ["x/7.png"], [-1, -1]),
        (["c/1.png", "a/1.png"], ["a/1.png", "b/1.png"], [-1, 0]),
        (["a.png", "b.png"], ["c.png", "d.png"], [-1, -1]),
    ],
)
def test_names_are_matched_in_one_way_or_not_at_all(
    rows: list[str], images: list[str], expected: list[int]
) -> None:
    assert match_names(rows, images).tolist() == expected


@given(NAMES, st.sampled_from(["", "pics/", "/home/me/pics/", ".\\pics\\"]), st.booleans(), st.randoms())
def test_any_order_prefix_form_and_case_leads_to_the_same_pictures(
    names: list[str], prefix: str, decomposed: bool, random
) -> None:
    order = list(range(len(names)))
    random.shuffle(order)
    form = "NFD" if decomposed else "NFC"
    rows = [prefix + unicodedata.normalize(form, names[place]) for place in order]
    assert match_names(rows, names).tolist() == order


@given(NAMES, NAMES)
@example(["a/a", "a/a."], ["a/a."])
def test_two_different_rows_never_share_a_picture(rows: list[str], images: list[str]) -> None:
    found = match_names(rows, images)
    taken = found[found >= 0]
    assert len(np.unique(taken)) == len(taken)
