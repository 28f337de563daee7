"""Sizes as they are shown."""

GB = 10**9


def size(count: int) -> str:
    """Show bytes.

    >>> size(14_141_252_608), size(4_400_000)
    ('14.1 GB', '4.4 MB')
    """
    return f"{count / GB:.1f} GB" if count >= GB / 10 else f"{count / 10**6:.1f} MB"
