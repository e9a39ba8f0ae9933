"""Name settings in messages, and the flags of the command line for them.

Messages of ``ebsc_core`` and of components name a setting in backticks, with a value where one is advised:
```n_clusters```, ```search.method=exact```. The code that shows a message spells the setting for its reader:
the command line as a flag, an estimator as a parameter.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# Each setting that has a flag of its own, with the type of value that a printed `ebsc run` gives to the flag.
# None: the flag takes no value, may be repeated, or is not one of `ebsc run`.
FLAGS: dict[str, tuple[str, type | None]] = {
    "data.name": ("--data", str),
    "data.root": ("--data-root", str),
    "data.limit": ("--limit", int),
    "data.skip_bad_images": ("--skip-bad-images", None),
    "features.array": ("--array", None),
    "features.labels": ("--labels", None),
    "features.ids": ("--ids", None),
    "features.images": ("--images", None),
    "backbone.name": ("--backbone", str),
    "backbone.pretrained": ("--pretrained", None),
    "backbone.weights": ("--weights", str),
    "objective.name": ("--objective", str),
    "coefficients.name": ("--coefficients", str),
    "clusterer.name": ("--clusterer", str),
    "n_clusters": ("--n-clusters", int),
    "like": ("--like", str),
    "dictionary_size": ("--dictionary-size", int),
    "train.epochs": ("--epochs", int),
    "train.batch_size": ("--batch-size", int),
    "seed": ("--seed", int),
    "device": ("--device", str),
    "precision": ("--precision", str),
    "out": ("--out", str),
    "cache": ("--cache", str),
    "observers": ("--observer", None),
}
_MENTION = re.compile(r"`([a-z]\w*(?:\.\w+)*)(?:=([^`]*))?`")


def respell(text: str, spelled: Callable[[str, str | None], str | None]) -> str:
    """Replace the settings in backticks.

    ``spelled`` gets the name and the value, or None without one. It returns None for a word that is not a
    setting, which stays as it is.
    """
    return _MENTION.sub(lambda mention: spelled(mention[1], mention[2]) or mention[0], text)
