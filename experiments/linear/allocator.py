"""Keep the memory that NumPy frees in the process.

glibc returns free memory at the end of the heap to the system, and a step of small arrays requests
it again at once, page by page: with the deep linear network that was a quarter of the time. On
other systems nothing happens. No result depends on it.
"""

from __future__ import annotations

import ctypes

# mallopt(3): parameters, and values. To set one ends the automatic adjustment of all, so all three
# are set.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
BYTES = {TRIM_THRESHOLD: 256 << 20, TOP_PAD: 32 << 20, MMAP_THRESHOLD: 32 << 20}


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory. Returns whether it does."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(parameter, size) for parameter, size in BYTES.items())
