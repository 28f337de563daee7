r"""The task of the embedded default: additions, solved column by column, by a student who forgets carries.

    question  What is 458 + 178?
    solution  8 + 8 = 16, carry 1. 5 + 7 + 1 = 13, carry 1. 4 + 1 + 1 = 6. The answer is \boxed{636}.
    flawed    8 + 8 = 16. 5 + 7 = 12. 4 + 1 = 5. The answer is \boxed{526}.

The tiny policy in `data/embedded_policy` learned from solutions in which each carry is forgotten with probability
`P_FORGET`. Its likeliest answer is therefore wrong wherever a carry is due, the right one is sampled now and then, and
reinforcement learning has something to find. (Random slips would not do: then the likeliest answer is right already.)

Everything here is pure text and numbers; `scripts/make_embedded.py` makes the files and the models from it.
"""

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


Split = Literal["pretrain", "train", "test"]

P_FORGET = 0.75
"""How likely the solutions that made the policy forget a carry."""

SYSTEM_PROMPT = None
"""The policy's conversation is the user's question alone."""

MAX_PROMPT_TOKENS = 16
"""No prompt of the two variants below is longer, with the policy's tokenizer and chat template."""

MAX_COMPLETION_TOKENS = {"addition": 40, "addition_hard": 64}
"""No solution of a variant is longer, its end included."""


@dataclass(frozen=True)
class Addition:
    r"""One question of the task.

    Args:
        a: First number.
        b: Second number.

    Example:
        >>> task = Addition(458, 178)
        >>> task.question, task.answer, task.carries
        ('What is 458 + 178?', '636', 2)
        >>> task.solution()
        '8 + 8 = 16, carry 1. 5 + 7 + 1 = 13, carry 1. 4 + 1 + 1 = 6. The answer is \\boxed{636}.'
        >>> task.solution(p_forget=1.0)
        '8 + 8 = 16. 5 + 7 = 12. 4 + 1 = 5. The answer is \\boxed{526}.'
    """

    a: int
    b: int

    @property
    def question(self) -> str:
        """The question as a user asks it."""
        return f"What is {self.a} + {self.b}?"

    @property
    def answer(self) -> str:
        """The right answer."""
        return str(self.a + self.b)

    @property
    def carries(self) -> int:
        """How many carries a right solution writes; the leading column's sum is written whole."""
        places = range(1, len(str(max(self.a, self.b))))
        return sum(self.a % 10**place + self.b % 10**place >= 10**place for place in places)

    def solution(self, p_forget: float = 0.0, rng: random.Random | None = None) -> str:
        """Write the solution column by column, from the right.

        A forgotten carry is neither written nor added.

        Args:
            p_forget: Probability with which each carry is forgotten.
            rng: Source of the chance; one with a fixed seed if not given.
        """
        rng = rng or random.Random(0)
        width = len(str(max(self.a, self.b)))
        steps, digits, carry = [], "", 0
        for place, (x, y) in enumerate(reversed(list(zip(f"{self.a:0{width}}", f"{self.b:0{width}}", strict=True)))):
            total = int(x) + int(y) + carry
            step = f"{x} + {y} + 1 = {total}" if carry else f"{x} + {y} = {total}"
            leading = place == width - 1
            carry = int(total > 9 and not leading and rng.random() >= p_forget)
            steps.append(f"{step}, carry 1." if carry else f"{step}.")
            digits = (str(total) if leading else str(total % 10)) + digits
        return f"{' '.join(steps)} The answer is \\boxed{{{digits}}}."


@dataclass(frozen=True)
class Variant:
    """A difficulty of the task.

    Args:
        digits: Digits of either number.
        min_carries: Questions with fewer carries are left out.
    """

    digits: int
    min_carries: int = 0


VARIANTS = {"addition": Variant(digits=3), "addition_hard": Variant(digits=5, min_carries=2)}
"""`addition`: the untrained policy is right in about two samples of five. `addition_hard`: in about one of thirty."""


def forgotten_carries(solution: str) -> dict[int, int]:
    r"""Find the columns of a solution, counted from the right, whose carry was forgotten, and what they sum to.

    Example:
        >>> forgotten_carries(r"8 + 8 = 16. 5 + 7 = 12. 4 + 8 = 12. The answer is \boxed{1226}.")
        {0: 16, 1: 12}
    """
    columns = re.findall(r"= (\d+)(, carry)?", solution)[:-1]
    return {place: int(total) for place, (total, carry) in enumerate(columns) if len(total) > 1 and not carry}


def split_of(question: str) -> Split:
    """Tell which part of the questions this one belongs to; the same on every machine, for ever.

    Half of all questions made the two models, two fifths are for RL, one tenth is held out.

    Example:
        >>> split_of("What is 458 + 178?")
        'train'
    """
    bucket = int.from_bytes(hashlib.sha256(question.encode()).digest()[:4], "big") % 10
    return "test" if bucket == 0 else "train" if bucket < 5 else "pretrain"


def sample_additions(split: Split, variant: Variant, rng: random.Random) -> Iterator[Addition]:
    """Draw questions of a split and a variant without end; they may repeat."""
    low, high = 10 ** (variant.digits - 1), 10**variant.digits - 1
    while True:
        task = Addition(rng.randint(low, high), rng.randint(low, high))
        if split_of(task.question) == split and task.carries >= variant.min_carries:
            yield task


def task_rows(split: Split, variant: Variant, num_rows: int, seed: int = 0) -> list[dict[str, str]]:
    """Rows of a task file, no question twice.

    Args:
        split: Which part of the questions.
        variant: Which difficulty.
        num_rows: How many rows.
        seed: Seed of the draw.

    Returns:
        Rows like `{"question": "What is 458 + 178?", "answer": "636"}`.
    """
    rows: dict[str, str] = {}
    tasks = sample_additions(split, variant, random.Random(f"{seed} {split}"))
    while len(rows) < num_rows:
        task = next(tasks)
        rows[task.question] = task.answer
    return [{"question": question, "answer": answer} for question, answer in rows.items()]
