"""Tuning of this process's memory allocator and garbage collector."""

import ctypes
import gc
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_… of glibc's malloc.h
_BYTES_MAX = (1 << 31) - 1  # bytes; the largest that mallopt takes
_THRESHOLD_MAX_BEFORE_2_35 = (
    1 << 25
)  # bytes; the largest threshold of maps that glibc before 2.35 takes, on 64-bit machines


def keep_freed_memory() -> None:
    """Keep what is freed for what is allocated next, instead of giving it back to the system.

    A training step allocates and frees the same hundreds of megabytes as the step before; by default glibc
    returns blocks as large as a network's first activations, and the kernel clears every page anew: a quarter
    of a step of EfficientNet-Lite0. The process stays as large as its largest step made it. Without effect
    where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # musl has none. A refusal is 0; another threshold alone would stop glibc from adapting its own.
    if mallopt is not None and (
        mallopt(_MMAP_THRESHOLD, _BYTES_MAX) or mallopt(_MMAP_THRESHOLD, _THRESHOLD_MAX_BEFORE_2_35)
    ):
        mallopt(_TRIM_THRESHOLD, _BYTES_MAX)


def freeze_live_objects() -> None:
    """Take what is alive now, imported modules above all, out of the garbage collector's rounds."""
    gc.collect()
    gc.freeze()
