"""What an estimator says while it works."""

from __future__ import annotations

import logging

import pytest

from ebsc_core.estimators.progress import Spoken


def test_notes_name_parameters_as_warnings_do(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ebsc")
    spoken = Spoken(verbose=True)
    spoken.note("trained weights stay as they are; `train.epochs=40` trains them on")
    with pytest.warns(UserWarning, match="epochs=40 trains them on"):
        spoken.warn("trained weights stay as they are; `train.epochs=40` trains them on")
    said = "trained weights stay as they are; epochs=40 trains them on"
    assert capsys.readouterr().out == f"{said}\n"
    assert caplog.messages == [said, said]
