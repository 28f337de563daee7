r"""Exact numbers: what a string such as `1,234`, `1\frac{1}{2}`, `33.5\%` or `1.5 \times 10^3` is worth."""

import re
from dataclasses import dataclass, replace
from fractions import Fraction


MAX_DIGITS = 4000
MAX_EXPONENT = 400
MIN_SHOWN_DIGITS = 3

UNSIGNED = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)"
DECIMAL = re.compile(rf"([-+]?)({UNSIGNED})")
SCIENTIFIC = re.compile(rf"([-+]?)({UNSIGNED})\s*(?:\*|\\times|\\cdot)\s*10\^(?:\{{([-+]?\d+)\}}|([-+]?\d))")
EXPONENT = re.compile(rf"([-+]?)({UNSIGNED})[eE]([-+]?\d{{1,3}})")
POWER = re.compile(r"([-+]?)(\d{1,6})\^(?:\{([-+]?\d{1,3})\}|(\d))")
FRACTION = re.compile(rf"([-+]?)\s*\\frac\{{([-+]?{UNSIGNED})\}}\{{([-+]?{UNSIGNED})\}}")
SLASH = re.compile(rf"([-+]?)\(?([-+]?{UNSIGNED})\)?\s*/\s*\(?([-+]?{UNSIGNED})\)?")
MIXED = re.compile(r"([-+]?)(\d+)\s*(?:\\frac\{(\d+)\}\{(\d+)\}|(?<=\s)(\d+)\s*/\s*(\d+))")
REPEATING = re.compile(r"([-+]?)(\d+)\.(\d*)(?:(?:\\overline|\\bar|\\dot)\{(\d+)\}|\((\d+)\))")
IN_BASE = re.compile(r"([-+]?)(?=[A-Z]*\d)([0-9A-Z]+(?:\.[0-9A-Z]+)?)_\{?(\d{1,2})\}?")
DECIMAL_COMMA = re.compile(r"([-+]?(?:\d+|\d{1,3}(?:\.\d{3})+)),(\d+)")
DOT_GROUPS = re.compile(r"[-+]?\d{1,3}(?:\.\d{3}){2,}")
ONE_COMMA = re.compile(r"[-+]?\d+,\d{1,2}")
SCALE = re.compile(r"\s*(?:\\text\{\s*)?(hundred|thousand|million|billion|trillion)\s*\}?$")
SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
PERCENT = re.compile(r"\s*(?:\\?%|\\text\{\s*(?:percent|percentage|pct|%|\\%)\s*\}|(?:percentage|percent|pct)\b)\.?$")


@dataclass(frozen=True, slots=True)
class Number:
    """An exact value, and how it was written.

    Attributes:
        value: The value, with a percentage already divided by 100.
        places: Decimals shown, below 0 for 1.25e4, or `None` for an exact form (an integer, a fraction, a repeating
            decimal).
        digits: Significant digits shown.
        percent: Whether a percent sign was there.
        base: The base it is written in.
    """

    value: Fraction
    places: int | None = None
    digits: int = 0
    percent: bool = False
    base: int = 10


def parse_number(text: str) -> Number | None:
    r"""The number that all of `text` is, or `None`.

    Example:
        >>> parse_number(r"1\frac{1}{2}").value, parse_number("1,234.50").value, parse_number("33.5\\%").value
        (Fraction(3, 2), Fraction(2469, 2), Fraction(67, 200))
        >>> parse_number("1,23") is None, parse_number("x") is None
        (True, True)
    """
    text = text.strip()
    if len(text) > MAX_DIGITS:
        return None
    if (number := _parse_plain(text)) is not None:
        return number
    if percent := PERCENT.search(text):
        number = _parse_plain(text[: percent.start()])
        if number is None:
            return None
        places = None if number.places is None else number.places + 2
        return Number(number.value / 100, places, number.digits, percent=True)
    if scale := SCALE.search(text):
        number = _parse_decimal(text[: scale.start()])
        return None if number is None else Number(number.value * SCALES[scale[1]])
    return None


def with_decimal_point(text: str) -> str:
    r"""A number whose comma or points can only be meant as on the Continent, as here; any other text unchanged.

    Three digits behind the comma are a thousand, and one may be the second member of a list, but for a percentage.

    Example:
        >>> [with_decimal_point(text) for text in ("7,25", "1.234,5", "1,234", "7,2", "7,2%", "1.234.567")]
        ['7.25', '1234.5', '1,234', '7,2', '7.2%', '1234567']
    """
    percent = PERCENT.search(text)
    if percent and ONE_COMMA.fullmatch(text[: percent.start()]):
        return text.replace(",", ".")
    if DOT_GROUPS.fullmatch(text):
        return text.replace(".", "")
    match = DECIMAL_COMMA.fullmatch(text)
    if match is None or ("." not in match[1] and len(match[2]) in (1, 3)):
        return text
    return f"{match[1].replace('.', '')}.{match[2]}"


def same_number(gold: Number, answer: Number) -> bool:
    r"""Whether two numbers are the same.

    Equal values in the same base are the same. A decimal against an exact value that it cannot show in full is the
    same when it is that value rounded or cut off, from three significant digits on: 16.67 for `16.\overline{6}`;
    a whole number is not 1.25e4 but for 12500.
    A percent sign on one side only may be missing or meant: 20% is 20, and it is 0.2; 20 is not 0.2.

    Example:
        >>> same_number(parse_number(r"\frac{2}{3}"), parse_number("0.667"))
        True
        >>> [same_number(parse_number("20%"), parse_number(text)) for text in ("20", "0.2", "2", "20%", "0.2%")]
        [True, True, False, True, False]
        >>> same_number(parse_number("2.23"), parse_number("2.232"))
        False
    """
    if gold.base != answer.base or gold.value == answer.value:
        return gold.base == answer.base
    if gold.percent != answer.percent:
        signed, bare = (gold, answer) if gold.percent else (answer, gold)
        without = Number(signed.value * 100, None if signed.places is None else signed.places - 2, signed.digits)
        return same_number(without, bare) or same_number(replace(signed, percent=False), bare)
    if (gold.places is None) == (answer.places is None):
        return False
    shown, exact = (gold, answer) if answer.places is None else (answer, gold)
    return shown_as(exact.value, shown)


def shown_as(value: Fraction, shown: Number) -> bool:
    """Whether a decimal shows an exact value, rounded or cut off; a whole one can be shown in full."""
    if shown.places is None or shown.digits < MIN_SHOWN_DIGITS or value.denominator == 1:
        return value == shown.value
    unit = Fraction(10) ** -shown.places
    error = (value - shown.value) * (-1 if shown.value < 0 else 1)
    return -unit / 2 <= error < unit


def _parse_plain(text: str) -> Number | None:
    text = text.strip()
    return _parse_decimal(text) or _parse_exact(text)


def _parse_decimal(text: str) -> Number | None:
    if match := DECIMAL.fullmatch(text):
        sign, digits = match.groups()
        exponent = 0
    elif match := SCIENTIFIC.fullmatch(text) or EXPONENT.fullmatch(text):
        sign, digits, *exponents = match.groups()
        exponent = int(next(power for power in exponents if power is not None))
    else:
        return None
    if abs(exponent) > MAX_EXPONENT:
        return None
    plain = digits.replace(",", "")
    value = _signed(sign, Fraction(int(plain) if plain.isdecimal() else plain.rstrip(".")))
    if exponent:
        value *= Fraction(10) ** exponent
    fraction = plain.partition(".")[2]
    shown = len(plain.replace(".", "").lstrip("0"))
    return Number(value, len(fraction) - exponent if fraction else None, shown)


def _parse_exact(text: str) -> Number | None:
    for pattern, evaluate in EXACT_FORMS:
        if match := pattern.fullmatch(text):
            value = evaluate(match)
            return None if value is None else Number(value, base=int(match[3]) if pattern is IN_BASE else 10)
    return None


def _signed(sign: str, value: Fraction) -> Fraction:
    return -value if sign == "-" else value


def _quotient(match: re.Match[str]) -> Fraction | None:
    sign, numerator, denominator = match.groups()
    divisor = Fraction(denominator.replace(",", ""))
    return None if divisor == 0 else _signed(sign, Fraction(numerator.replace(",", "")) / divisor)


def _mixed(match: re.Match[str]) -> Fraction | None:
    sign, whole, *parts = match.groups()
    numerator, denominator = [int(part) for part in parts if part is not None]
    return None if denominator == 0 else _signed(sign, int(whole) + Fraction(numerator, denominator))


def _power(match: re.Match[str]) -> Fraction | None:
    sign, base, braced, bare = match.groups()
    exponent = int(braced or bare)
    return None if int(base) == 0 and exponent < 0 else _signed(sign, Fraction(int(base)) ** exponent)


def _repeating(match: re.Match[str]) -> Fraction | None:
    sign, whole, fixed, *periods = match.groups()
    period = periods[0] or periods[1]
    repeated = Fraction(int(period), 10 ** len(fixed) * (10 ** len(period) - 1))
    return _signed(sign, Fraction(f"{whole}.{fixed or 0}") + repeated)


def _in_base(match: re.Match[str]) -> Fraction | None:
    sign, (whole, _, places), base = match[1], match[2].partition("."), int(match[3])
    if not 2 <= base <= 36 or max(int(digit, 36) for digit in whole + places) >= base:
        return None
    return _signed(sign, Fraction(int(whole + places, base), base ** len(places)))


def lacks_base(gold: str, answer: str) -> bool:
    """Whether an answer is the gold's digits without its base, which the problem has named.

    Example:
        >>> lacks_base("1011_2", "1011"), lacks_base("1011_2", "11"), lacks_base("11", "11_2")
        (True, False, False)
    """
    match = IN_BASE.fullmatch(gold)
    return match is not None and match[1] + match[2] == answer.lstrip("+").upper()


EXACT_FORMS = (
    (IN_BASE, _in_base),
    (FRACTION, _quotient),
    (SLASH, _quotient),
    (MIXED, _mixed),
    (POWER, _power),
    (REPEATING, _repeating),
)
