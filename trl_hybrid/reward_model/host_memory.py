"""Memory of the CPU between forwards."""

import torch


LEARNED_BYTES = 31 << 20


def keep_freed_memory() -> None:
    """Let the C library keep what a forward on the CPU frees, for the next one to use.

    glibc hands freed blocks back to the system, which then fetches and clears every page of the next forward anew: a
    tenth of a small model's time. It learns otherwise from large blocks that come and go, and only from them: up to
    32 MiB, a freed block's size becomes the one from which blocks are handed back (mallopt(3), M_MMAP_THRESHOLD), and
    twice that is kept. So one such block does, and costs nothing. Larger blocks, as a 7B model's layers make, are
    still handed back; next to their computation that is little. Other C libraries do not mind.
    """
    torch.empty(LEARNED_BYTES, dtype=torch.uint8, device="cpu")
