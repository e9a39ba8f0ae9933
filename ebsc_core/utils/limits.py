"""Limit the memory that a file may ask for to what its real size allows.

A file from outside may declare far more than it holds: a header that lies, or a kilobyte that unpacks to
gigabytes. So each reader compares the two before it allocates anything.
"""

from __future__ import annotations

from ebsc_core.utils.errors import DataError
from ebsc_core.utils.system import available_memory

# What is packed may need this many times its stored size. Features rarely pack better than 20 to 1, sparse
# ones included, and a file made to fill the memory reaches 1,000 to 1 and more.
MAX_RATIO = 100
# Up to this size, any ratio is read: it does no harm, and constant data really pack that well.
ALWAYS_BYTES = 64 << 20


def allowed_bytes(stored: int) -> int:
    """Return the memory that ``stored`` bytes of a file may need."""
    return max(ALWAYS_BYTES, MAX_RATIO * stored)


def check_size(where: str, needed: int, stored: int) -> None:
    """Check that the declared size of data fits their stored size and the free memory.

    Raises
    ------
    DataError
        If ``needed`` bytes are more than ``stored`` bytes allow, or than are free. ``where`` begins the
        message.
    """
    if needed > allowed_bytes(stored):
        raise DataError(
            f"{where} would need {in_words(needed)} of memory, but holds {in_words(stored)}; the file is "
            "damaged or made to fill the memory (if it is right, save the data uncompressed, as .npy)"
        )
    available = available_memory()
    if available is not None and needed > available:
        raise DataError(
            f"{where} needs {in_words(needed)} of memory, {in_words(available)} are free; save the data as "
            ".npy, which is read in blocks"
        )


def in_words(size: int) -> str:
    """Return a number of bytes in the unit that suits it."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024  # type: ignore[assignment]
    return f"{size:.0f} TiB" if size < 1024 else "over 1024 TiB"
