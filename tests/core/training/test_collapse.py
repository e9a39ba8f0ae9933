from __future__ import annotations

from ebsc_core.training.collapse import collapse_warning


def test_a_healthy_rank_needs_no_warning() -> None:
    assert collapse_warning(20.0, 128, 128, 10, None) is None
    assert collapse_warning(20.0, 128, 128, 10, 30.0) is None


def test_too_few_directions_for_the_clusters_are_said() -> None:
    warning = collapse_warning(4.2, 128, 128, 10, None)
    assert warning is not None
    assert "collapsed" in warning
    assert "4.2 of 128" in warning
    assert "joint" not in warning  # there was none to blame


def test_in_the_joint_phase_its_weight_is_to_blame() -> None:
    assert "lower joint.weight" in str(collapse_warning(4.2, 128, 128, 10, 5.0))


def test_losing_more_than_half_the_rank_in_the_joint_phase_is_said() -> None:
    warning = str(collapse_warning(20.0, 128, 128, 10, 50.0))
    assert "20.0 of 128" in warning
    assert "50.0 before" in warning
    assert "lower joint.weight" in warning


def test_more_clusters_than_rows_or_directions_are_no_collapse() -> None:
    """Random rows fill nearly all of the directions that a batch, or its width, can have."""
    assert collapse_warning(120.0, 128, 512, 300, None) is None
    assert collapse_warning(14.9, 256, 16, 40, None) is None
    assert "collapsed" in str(collapse_warning(50.0, 128, 512, 300, None))
