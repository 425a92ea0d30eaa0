"""Tuning of the memory allocator and garbage collector."""

import ctypes
import gc
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_… of glibc's malloc.h
_BYTES_MAX = (1 << 31) - 1  # largest argument of mallopt
_THRESHOLD_MAX_BEFORE_2_35 = 1 << 25  # largest mmap threshold of older glibc on 64-bit machines


def keep_freed_memory() -> None:
    """Reuse freed memory instead of returning it to the system.

    Each training step allocates and frees the same hundreds of megabytes. By default glibc returns blocks as
    large as a network's first activations, and the kernel then zeroes every page again, which takes a quarter
    of a training step of EfficientNet-Lite0. The process stays as large as its largest step. No effect
    without glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # musl lacks it. 0 means refused; setting the trim threshold alone would only stop glibc adapting its own.
    if mallopt is not None and (
        mallopt(_MMAP_THRESHOLD, _BYTES_MAX) or mallopt(_MMAP_THRESHOLD, _THRESHOLD_MAX_BEFORE_2_35)
    ):
        mallopt(_TRIM_THRESHOLD, _BYTES_MAX)


def freeze_live_objects() -> None:
    """Exclude objects alive now, mostly imported modules, from later garbage collection."""
    gc.collect()
    gc.freeze()
