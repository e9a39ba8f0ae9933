from __future__ import annotations

import ebsc_core
import ebsc_core.testing


def test_every_public_name_can_be_had() -> None:
    for module in (ebsc_core, ebsc_core.testing):
        assert not [name for name in module.__all__ if not callable(getattr(module, name))]
