"""Keep what a step has freed for the next step: the same tensors come again, thousands of times."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_KEPT_BYTES = 512 << 20
_LARGEST_KEPT_BYTES = 32 << 20  # the most that glibc takes


def keep_freed() -> bool:
    """Ask glibc not to give freed memory back to Linux at once; False where there is no such question.

    Without it a step of a small network meets some 300 to 1,000 page faults, a tenth of its time.
    """
    try:
        ask = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(ask(_TRIM_THRESHOLD, _KEPT_BYTES)) and bool(ask(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES))
