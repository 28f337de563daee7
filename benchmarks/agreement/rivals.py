"""The graders in common use, each in a process that can be killed."""

import logging
import multiprocessing
from collections.abc import Callable, Sequence

from agreement.rows import Row
from pebble import ProcessPool
from tqdm import tqdm


Pair = tuple[str, str]
SECONDS = 20.0  # for a pair, which a rival then loses


def trl_accuracy_reward(pair: Pair) -> bool:
    """TRL's reward function on one (gold, completion)."""
    from trl.rewards import accuracy_reward

    gold, completion = pair
    return accuracy_reward([[{"role": "assistant", "content": completion}]], [gold]) == [1.0]


def plain_math_verify(pair: Pair) -> bool:
    """`verify(parse(gold), parse(completion))`."""
    from math_verify import parse, verify

    gold, completion = pair
    return verify(parse(gold), parse(completion))


def boxed_math_verify(pair: Pair) -> bool:
    """The same, the gold boxed unless it brings an environment of its own."""
    gold, completion = pair
    return plain_math_verify((gold if "$" in gold or r"\boxed" in gold else rf"\boxed{{{gold}}}", completion))


RIVALS: dict[str, Callable[[Pair], bool]] = {
    "math-verify boxed": boxed_math_verify,
    "math-verify": plain_math_verify,
    "accuracy_reward": trl_accuracy_reward,
}


def run_rival(name: str, rows: Sequence[Row]) -> list[bool]:
    """A rival's verdicts; a pair that it does not finish, or fails on, is a refusal."""
    context = multiprocessing.get_context("spawn")
    with ProcessPool(max_workers=1, context=context, initializer=logging.disable, initargs=[logging.CRITICAL]) as pool:
        pairs = [(row.gold, row.completion) for row in rows]
        futures = [pool.schedule(RIVALS[name], args=[pair], timeout=SECONDS) for pair in pairs]
        return [
            future.exception() is None and bool(future.result()) for future in tqdm(futures, desc=name, unit="row")
        ]
