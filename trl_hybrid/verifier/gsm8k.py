r"""The two GSM8K scorers of verl, by their names, with their holes repaired.

Source: verl/utils/reward_score/gsm8k.py. "strict" wants `#### n`, "flexible" takes the last number-like token.
Each accepts what verl's accepts, and besides that `6.` for 6, `1,000` for 1000, `18.00` for 18 and `#### $18`. One
thing that verl's accepts is refused: the 3 of `10-3` is not -3.
"""

import re

from trl_hybrid.verifier.answers import ExtractedAnswer
from trl_hybrid.verifier.cleaning import clean
from trl_hybrid.verifier.equivalence import is_blank
from trl_hybrid.verifier.numeric import parse_number
from trl_hybrid.verifier.verdict import Reason


STRICT = re.compile(r"####\s{0,9}\\?\$?\s?(-?\s?\\?\$?[0-9.,]+)")
FLEXIBLE = re.compile(r"(?:(?<![0-9)])-)?[0-9.,]+")


def strict_answer(completion: str, prompt: str = "") -> ExtractedAnswer | None:
    """The number behind the last `####`.

    Example:
        >>> strict_answer("12 + 6 = 18 #### $18").text
        '18'
    """
    token = _last_number(STRICT.findall(clean(completion)))
    return None if token is None else ExtractedAnswer(re.sub(r"[\\$\s]", "", token), "hash")


def flexible_answer(completion: str, prompt: str = "") -> ExtractedAnswer | None:
    """The last number-like token.

    Example:
        >>> flexible_answer("So it is 6, then.").text, flexible_answer("10-3").text, flexible_answer("none")
        ('6,', '3', None)
    """
    token = _last_number(FLEXIBLE.findall(clean(completion)))
    return None if token is None else ExtractedAnswer(token, "phrase")


def _last_number(tokens: list[str]) -> str | None:
    """The last token with a digit in it; dots and commas alone are no number."""
    return next((token for token in reversed(tokens) if any(char.isdigit() for char in token)), None)


def compare_numbers(gold: str, answer: str) -> Reason:
    """Compare as verl does, by string, and as numbers.

    Example:
        >>> compare_numbers("18", "18.00"), compare_numbers("1000", "1,000.")
        ('numeric', 'numeric')
    """
    if is_blank(gold):
        return "unjudgeable"
    plain = answer.replace(",", "")
    if gold in (plain, answer):
        return "exact"
    gold_number, number = parse_number(gold.lstrip("$ ")), parse_number(plain.rstrip("."))
    if gold_number is not None and number is not None and gold_number.value == number.value:
        return "numeric"
    return "mismatch"
