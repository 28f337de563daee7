r"""Answers that leave the work to be done: `22 + 46` where the gold is 68, `x^2-4` where it is to be factored.

They are equal in value, and a policy that is trained on verdicts learns within a few steps to repeat the question
instead of answering it.
"""

import re

from trl_hybrid.verifier import shapes, units
from trl_hybrid.verifier.latex import PLAIN_NUMBER, normalize, split_top
from trl_hybrid.verifier.lead_in import without_lead_in
from trl_hybrid.verifier.numeric import (
    FRACTION,
    MIN_SHOWN_DIGITS,
    REPEATING,
    SLASH,
    UNSIGNED,
    Number,
    parse_number,
    same_number,
)
from trl_hybrid.verifier.plaintext import to_latex
from trl_hybrid.verifier.repeated import is_composed, squeezed, stands_in


WORK = re.compile(r"[-+*/^!|(\\×÷·−√]|gcd|lcm|max|min|sin|cos|tan|log|ln|exp|sqrt", re.IGNORECASE)
BEHIND_OPERAND = r"(?<=[\d)}!%|\]])\s*"
SUM = re.compile(rf"{BEHIND_OPERAND}[-+]\s*(?=[-+\d({{.|\\\[])")
PRODUCT = re.compile(
    r"\*|\\(?:times|cdot)(?![a-zA-Z])"
    r"|[\d)}!|]\s*\(|\)\s*(?:[\d.|]|\\[a-z])|\}\s*(?:\d|\\[a-z])|\d\s*\|+\s*\d"  # without a sign: 8(9), (8)9, |8|9
)
QUOTIENT = re.compile(r"/|\\(?:div|[dt]?frac)(?![a-zA-Z])")
ROOT_OR_POWER = re.compile(r"\^|\\sqrt(?![a-zA-Z])|!")
FUNCTION = re.compile(
    r"\\(?:gcd|max|min|[dt]?binom|lfloor|rfloor|lceil|rceil|bmod|log|ln|exp|(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?)"
    r"(?![a-zA-Z])|\\operatorname\{\w+\}|(?:gcd|lcm|max|min)(?=\()"
)
NOTATION = re.compile(
    r"\\(?:times|cdot|div|[dt]?frac|sqrt|left|right|big|Big|quad|circ|pi|theta|alpha|beta|phi|[,;:! ])(?![a-zA-Z])"
)
LETTER = re.compile(r"[a-zA-Z]")
CONSTANT = re.compile(r"\\(?:pi|theta|alpha|beta|phi)(?![a-zA-Z])|(?<![\\a-zA-Z])[a-zA-Z]{1,2}(?![a-zA-Z])")
# A number as factors or powers, or in scientific notation: what the problem asks for is this form.
FACTORED = re.compile(r"(?:[\d.,^*{}()\s-]|\\(?:times|cdot)(?![a-zA-Z]))+")
FACTOR = re.compile(r"\^|\*|[×·⋅]|\\(?:times|cdot)(?![a-zA-Z])")
WORD = re.compile(r"[a-zA-Z]{3,}|\\[a-zA-Z]")
ATOM = re.compile(r"[\d.]+\^-?\d+|sqrt(?:\[\d+\])?[\d.]+|\d+!")  # of what is squeezed: 2^10, sqrt144, 5!
DIGITS = re.compile(UNSIGNED)
QUICK_LENGTH = 300  # characters


def leaves_work(gold: str, answer: str, prompt: str) -> bool:
    r"""Whether an answer is still to be worked out; each member of a list is looked at.

    Where the gold is a number, a sum, difference or product of numbers is, a function of numbers, and what holds
    letters that cancel; a quotient where the gold is whole, for 3/4 is a number. A root, a power, a fraction that can
    be reduced and any other expression is where the prompt has it, unless the gold has the same symbols. So is a plain
    number of the prompt's where the gold is its factors, a power or in scientific notation.

    Args:
        gold: The reference's answer.
        answer: The completion's answer, of the gold's value.
        prompt: The problem.

    Example:
        >>> [leaves_work("68", text, "What is 22 + 46?") for text in ("46 + 22", "22 + 46 = 68", "68", "88 = 22+46")]
        [True, False, False, True]
        >>> [leaves_work(gold, text, "") for gold, text in (("0.75", "3/4"), ("42", "84/2"), ("20", r"2 \times 10^1"))]
        [False, True, False]
        >>> leaves_work("1024", "2^{10}", "What is 2^10?"), leaves_work("1024", "2^{10}", "How many subsets?")
        (True, False)
        >>> leaves_work(r"2^3 \cdot 3", "24", "Factor 24."), leaves_work(r"2^3 \cdot 3", "24", "What is 4!?")
        (True, False)
        >>> leaves_work("(x+1)^2", "x^2+2x+1", "Factor x^2+2x+1."), leaves_work("(x+1)^2", "x^2+2x+1", "Find f(x).")
        (True, False)
    """
    if FACTORED.fullmatch(gold) and FACTOR.search(gold) and not FACTOR.search(answer):
        return _is_of_the_prompt(answer, prompt)
    if PLAIN_NUMBER.fullmatch(answer) or not WORK.search(answer):
        return False
    gold, answer, prompt = _read(gold), _read(answer), squeezed(prompt)
    if parse_number(gold) is not None:  # 1,234 is no list
        return _is_unworked([gold], answer, prompt)
    golds = [_value(item) for item in _items(gold)]
    return any(_is_unworked(golds, item, prompt) for item in _items(answer))


def _is_of_the_prompt(answer: str, prompt: str) -> bool:
    """Whether an answer is a number that the prompt has, however either writes it."""
    number = parse_number(_value(_read(answer)).strip("() "))
    if number is None:
        return False
    given = (parse_number(match[0].rstrip(".")) for match in DIGITS.finditer(prompt))
    return any(other is not None and other.value == abs(number.value) for other in given)


def _read(text: str) -> str:
    """An answer in one spelling, without its unit; a long one is not read as a program's, which takes its square."""
    text = normalize(text)
    return units.without_unit(without_lead_in(text if len(text) > QUICK_LENGTH else to_latex(text)))


def _items(text: str) -> list[str]:
    rows = shapes.matrix_rows(text)
    return list(shapes.container(text).items) if rows is None else [cell for row in rows for cell in row]


def _value(item: str) -> str:
    """The value to which an item gives a name; any other item as it is."""
    name, values = shapes.equation(item)
    return values[0] if name is not None and len(values) == 1 else item


def is_arithmetic(text: str) -> bool:
    """Whether a text is a sum, difference, product or quotient of numbers and nothing else.

    Example:
        >>> is_arithmetic("22 + 46"), is_arithmetic("-46"), is_arithmetic("x + 46")
        (True, False, False)
    """
    has_operator = any(pattern.search(text) for pattern in (SUM, PRODUCT, QUOTIENT))
    return has_operator and not LETTER.search(NOTATION.sub("", text)) and not CONSTANT.search(text)


def _is_unworked(golds: list[str], item: str, prompt: str) -> bool:
    """Whether one member of an answer is still to be worked out, beside all members of the gold."""
    members = split_top(item, shapes.EQUALS)
    numbers = [number for gold in golds if (number := parse_number(gold)) is not None]
    if len(numbers) < len(golds) or r"\begin" in item:  # as in a product of matrices
        return _repeats(golds, item, members, prompt) or (bool(numbers) and _is_plain_work(golds, item))
    open_ones = [_is_open(member, numbers, prompt) for member in members]
    if not any(open_ones):
        return False
    said = [parse_number(member) for member, is_open in zip(members, open_ones, strict=True) if not is_open]
    return not any(value is not None and same_number(gold, value) for value in said for gold in numbers)


def _repeats(golds: list[str], item: str, members: list[str], prompt: str) -> bool:
    """Whether an expression, or all that it is said to be equal to, stands in the prompt; but not the gold's own."""
    own = {tuple(sorted(squeezed(text))) for gold in golds for text in (gold, *split_top(gold, shapes.EQUALS))}
    stated = [member for member in members if not shapes.is_name(member)] or members
    repeated = [
        is_composed(text := squeezed(part)) and tuple(sorted(text)) not in own and stands_in(text, prompt)
        for part in (item, *stated)
        if parse_number(part) is None
    ]
    return any(repeated[:1]) or (len(repeated) == 1 + len(stated) and all(repeated[1:]))


def _is_plain_work(golds: list[str], item: str) -> bool:
    """Whether a member is a sum or product of plain numbers beside a gold that has a number and none of these."""
    is_work = is_arithmetic(item) and (SUM.search(item) or PRODUCT.search(item)) and not ROOT_OR_POWER.search(item)
    return bool(is_work) and not any(is_arithmetic(gold) and parse_number(gold) is None for gold in golds)


def _is_open(text: str, golds: list[Number], prompt: str) -> bool:
    """Whether numbers are still to be put together, where every member of the gold is a number."""
    whole = all(gold.value.denominator == 1 for gold in golds)
    if (number := parse_number(text)) is not None:
        if QUOTIENT.search(text):
            return number.value.denominator == 1 or _is_reducible(text, number, prompt)
        can_be_worked_out = ROOT_OR_POWER.search(text) or REPEATING.fullmatch(text)
        return can_be_worked_out is not None and stands_in(squeezed(text), prompt)
    if WORD.search(FUNCTION.sub("", NOTATION.sub("", text))):
        return False
    exact = bool(ROOT_OR_POWER.search(text))  # as 2 + \sqrt{2} is, where the gold is a decimal
    has_operator = exact or any(pattern.search(text) for pattern in (SUM, PRODUCT, QUOTIENT))
    if FUNCTION.search(text) or (has_operator and CONSTANT.search(text)):
        return not any(_may_be_rounded(gold) for gold in golds)
    if (whole or not exact) and (SUM.search(text) or PRODUCT.search(text)):
        return True
    if whole and QUOTIENT.search(text):
        return True
    own = squeezed(text)
    return has_operator and any(stands_in(part, prompt) for part in (own, *(ATOM.findall(own) if whole else ())))


def _is_reducible(text: str, number: Number, prompt: str) -> bool:
    """Whether a fraction of the prompt is not in its lowest terms."""
    is_fraction = FRACTION.fullmatch(text) or SLASH.fullmatch(text)
    own = squeezed(text)
    return is_fraction is not None and own != str(number.value) and stands_in(own, prompt)


def _may_be_rounded(gold: Number) -> bool:
    """Whether a gold may stand for an exact form such as a logarithm."""
    return gold.places is not None and gold.digits >= MIN_SHOWN_DIGITS and gold.value.denominator != 1
