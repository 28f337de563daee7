"""What to leave out of a row that is too long: never the question, never the answer."""

from collections.abc import Sequence

from trl_hybrid.reward_model.plan import Row


def shorten(row: Sequence[int], head: int, max_length: int) -> Row:
    """Keep the head, the tokens before the solution, and the end of a row of more than `max_length`.

    A head of more than three quarters of the limit gives up its middle to the solution's end: the question's first
    words and the start of the answering turn stay.

    Example:
        >>> shorten(range(12), head=3, max_length=6)
        (0, 1, 2, 9, 10, 11)
        >>> shorten(range(12), head=10, max_length=8)
        (0, 1, 2, 7, 8, 9, 10, 11)
    """
    kept_tail = min(len(row) - head, max(max_length - head, max_length // 4))
    kept_head = max_length - kept_tail
    if kept_head >= head:
        return (*row[:head], *row[len(row) - max_length + head :])
    end_of_head = kept_head // 2
    tail_start = len(row) - kept_tail
    return (*row[: kept_head - end_of_head], *row[head - end_of_head : head], *row[tail_start:])
