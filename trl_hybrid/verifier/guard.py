r"""The static guard: answers that are too large to be looked at, seen from their text alone.

It only saves time: what passes it still runs in a process that is killed at its deadline and at its memory cap.
"""

import re

from trl_hybrid.verifier.numeric import parse_number


# Far above what answers to problems have, far below what keeps a worker busy up to its deadline.
MAX_LENGTH = 4000
MAX_NESTING = 60
MAX_DIGIT_RUN = 1000
MAX_OPERATORS = 600
MAX_POWER_TOWER = 2
MAX_EXPONENT = 20_000
MAX_FACTORIAL = 10_000

DIGIT_RUN = re.compile(rf"\d{{{MAX_DIGIT_RUN},}}")
OPERATOR = re.compile(r"[-+*/^!]|\\[a-zA-Z]+")
FACTORIAL = re.compile(r"([\d^{}]+)\s*\)?\s*!|\\binom\s*\{([^{}]*(?:\{[^{}]*\})?)\}|!\s*!")


def is_too_large(text: str) -> bool:
    r"""Whether an answer's length, nesting, powers or factorials rule out that it is looked at.

    Example:
        >>> [is_too_large(text) for text in (r"2^{10^{11}}", "9^{9^{9^{9}}}", "(10^{8})!", "3^{2024}")]
        [True, True, True, False]
    """
    if len(text) > MAX_LENGTH or DIGIT_RUN.search(text) or len(OPERATOR.findall(text)) > MAX_OPERATORS:
        return True
    return _nesting(text) > MAX_NESTING or _has_giant_power(text) or _has_giant_factorial(text)


def _nesting(text: str) -> int:
    depth = deepest = 0
    for char in text:
        if char in "({[":
            depth += 1
            deepest = max(deepest, depth)
        elif char in ")}]":
            depth -= 1
    return deepest


def _has_giant_power(text: str) -> bool:
    """Whether an exponent is a giant number, or powers stand on powers."""
    open_groups: list[tuple[bool, int]] = []  # (is an exponent, where its content starts)
    for position, char in enumerate(text):
        if char in "({":
            # Six characters are a `^` and a `\left`.
            before = text[max(0, position - 6) : position].replace(r"\left", "").rstrip(" {(")
            open_groups.append((before.endswith("^"), position + 1))
        elif char in ")}" and open_groups:
            is_exponent, start = open_groups.pop()
            if is_exponent and _is_giant(text[start:position], MAX_EXPONENT):
                return True
        elif char == "^" and sum(is_exponent for is_exponent, _ in open_groups) >= MAX_POWER_TOWER:
            return True
    return False


def _has_giant_factorial(text: str) -> bool:
    for match in FACTORIAL.finditer(text):
        operand = match[1] or match[2]
        if operand is None or _is_giant(operand.strip("{}() ") + "}" * ("^{" in operand), MAX_FACTORIAL):
            return True
    return False


def _is_giant(text: str, limit: int) -> bool:
    # Without algebra: what is no plain number passes here, and is stopped at the worker's deadline.
    number = parse_number(text.strip("() "))
    return number is not None and abs(number.value) > limit
