r"""Answers that leave the work to be done: `22 + 46` where the gold is 68.

They are equal in value, and a policy that is trained on verdicts learns within a few steps to repeat the question
instead of answering it.
"""

import re

from trl_hybrid.verifier import units
from trl_hybrid.verifier.latex import PLAIN_NUMBER, normalize, split_top
from trl_hybrid.verifier.numeric import parse_number, same_number
from trl_hybrid.verifier.plaintext import to_latex
from trl_hybrid.verifier.shapes import EQUALS


WORK = re.compile(r"[-+*/^!|\\×÷·−]|gcd|lcm|max|min", re.IGNORECASE)
BEHIND_OPERAND = r"(?<=[\d)}!%|\]])\s*"
SUM = re.compile(rf"{BEHIND_OPERAND}[-+]\s*(?=[-+\d({{.|\\\[])")
PRODUCT = re.compile(r"\*|\\(?:times|cdot)(?![a-zA-Z])")
QUOTIENT = re.compile(r"/|\\(?:div|[dt]?frac)(?![a-zA-Z])")
ROOT_OR_POWER = re.compile(r"\^|\\sqrt(?![a-zA-Z])|!")
FUNCTION = re.compile(
    r"\\(?:gcd|max|min|[dt]?binom|lfloor|rfloor|lceil|rceil|bmod)(?![a-zA-Z])|\\operatorname\{\w+\}|(?:gcd|lcm|max|min)(?=\()"
)
NOTATION = re.compile(r"\\(?:times|cdot|div|[dt]?frac|sqrt|left|right|big|Big|quad|[,;:! ])(?![a-zA-Z])")
LETTER = re.compile(r"[a-zA-Z]")
QUICK_LENGTH = 300  # characters
SPACING = re.compile(r"[\s{}$]|\\(?:left|right)(?![a-zA-Z])")


def leaves_work(gold: str, answer: str, prompt: str) -> bool:
    r"""Whether an answer is still to be calculated, where the gold is a number.

    A sum, difference or product of numbers is, and a quotient where the gold is whole; 3/4 is a number. A root or a
    power is where the prompt has it.

    Args:
        gold: The reference's answer.
        answer: The completion's answer.
        prompt: The problem.

    Example:
        >>> [leaves_work("68", text, "What is 22 + 46?") for text in ("46 + 22", "22 + 46 = 68", "68", "88 = 22+46")]
        [True, False, False, True]
        >>> [leaves_work(gold, text, "") for gold, text in (("0.75", "3/4"), ("42", "84/2"), ("20", r"2 \times 10^1"))]
        [False, True, False]
        >>> leaves_work("1024", "2^{10}", "What is 2^10?"), leaves_work("1024", "2^{10}", "How many subsets?")
        (True, False)
    """
    if PLAIN_NUMBER.fullmatch(answer) or not WORK.search(answer):
        return False
    number = parse_number(_read(gold))
    if number is None:
        return False
    members = split_top(_read(answer), EQUALS)
    open_ones = [_is_open(member, number.value.denominator == 1, prompt) for member in members]
    if not any(open_ones):
        return False
    said = [parse_number(member) for member, is_open in zip(members, open_ones, strict=True) if not is_open]
    return not any(value is not None and same_number(number, value) for value in said)


def _read(text: str) -> str:
    """An answer in one spelling, without its unit; a long one is not read as a program's, which takes its square."""
    text = normalize(text)
    return units.without_unit(text if len(text) > QUICK_LENGTH else to_latex(text))


def is_arithmetic(text: str) -> bool:
    """Whether a text is a sum, difference, product or quotient of numbers and nothing else.

    Example:
        >>> is_arithmetic("22 + 46"), is_arithmetic("-46"), is_arithmetic("x + 46")
        (True, False, False)
    """
    has_operator = any(pattern.search(text) for pattern in (SUM, PRODUCT, QUOTIENT))
    return has_operator and not LETTER.search(NOTATION.sub("", text))


def _is_open(text: str, whole: bool, prompt: str) -> bool:
    """Whether numbers are still to be put together; `whole` is whether the gold is a whole number."""
    if LETTER.search(FUNCTION.sub("", NOTATION.sub("", text))):
        return False
    if FUNCTION.search(text):
        return True
    exact = bool(ROOT_OR_POWER.search(text))  # as 2 + \sqrt{2} is, where the gold is a decimal
    if SUM.search(text):
        return whole or not exact
    if not exact and (PRODUCT.search(text) or (whole and QUOTIENT.search(text))):
        return True
    return exact and _squeezed(text) in _squeezed(prompt)


def _squeezed(text: str) -> str:
    return SPACING.sub("", text)
