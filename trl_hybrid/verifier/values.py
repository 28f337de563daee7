r"""The values that stand in a sentence: formulas, expressions, points, ratios, numbers in digits and in words.

Pure strings. Formulas come masked, as `\ue0003\ue001` for the fourth one, so that no rule cuts one in two.
"""

import re
from dataclasses import dataclass

from trl_hybrid.verifier.boxes import PERCENT_AFTER
from trl_hybrid.verifier.words import NUMBER_WORDS, value_of


MASK = re.compile("\ue000(\\d+)\ue001")
DIGITS = r"(?:\d{1,3}(?:[  ]\d{3})+(?![\d,.]*\d)|\d{1,3}(?:\.\d{3})+,\d+(?![\d,.]*\d)|\d+(?:,\d+)*(?:\.\d+)?|\.\d+)"
NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.,\\^{])(?:(?<![A-Za-z0-9)\]}])[-+])?(?:\\?\$|[€£¥])?"
    rf"(?:\d+ \d+/\d+|{DIGITS}(?:\s?/\s?\d+)?)(?![\d_])"
    r"(?:\s*(?:\\?%|percent\b|pct\b)|\s(?:hundred|thousand|million|billion|trillion)\b)?"
    r"|-?\\[dt]?frac\{-?\d+\}\{\d+\}"
)
SIGN_WORD = re.compile(r"(?<![\d)%]\s)\bminus\s+$|\bnegative\s+$", re.IGNORECASE)
AND_A_HALF = re.compile(r"\s+and\s+(?:a|one)\s+half\b", re.IGNORECASE)
MEMBER = r"\s*-?(?:\d+(?:\.\d+|/\d+)?(?:[a-zπ](?![a-z]))?|√?\d+|∞|inf(?:inity)?|oo|pi|π|[a-z])\s*"
POINT = re.compile(rf"[(\[{{](?:{MEMBER},){{1,9}}{MEMBER}[)\]}}]")
RATIO = re.compile(
    r"(?<![\d:.])\d+(?:\s?:\s?\d+)+(?:\s?[AaPp]\.?\s?[Mm]\b\.?)?(?![\d:])|(?<=ratio is )\d+ to \d+\b"
    r"|\b\d+ out of \d+\b"
)
TWO_UNITS = re.compile(
    r"\b\d+(?:\.\d+)?\s(?:hours?|hrs?|minutes?|feet|foot|pounds?|years?|weeks?|days?|dollars?)(?:,? and)?\s"
    r"\d+(?:\.\d+)?\s(?:minutes?|mins?|seconds?|inch(?:es)?|ounces?|months?|days?|hours?|cents?)\b"
)
# One kind of token for each first character, so that no text takes longer than its length.
ATOM = (
    r"(?:\d+(?:\.\d+)?|\\?(?:sqrt|sin|cos|tan|ln|log|exp|pi)(?![a-zA-Z])|[π√∞]"
    r"|(?<![A-Za-z])[a-zA-Z](?![A-Za-z])|[()]|!(?=\s[a-z]))"
)
EXPRESSION = re.compile(rf"(?<![\w\\.,/])(?:-\s?)?{ATOM}(?:{ATOM}|\s?(?:\*\*|[-+*/^=·×])\s?(?={ATOM}|-))*")
SYMBOL = re.compile(r"[a-zA-Zπ√∞^!]")
COMPOSED = re.compile(r"[-+*/^!=·×π√]|\d[a-zA-Z(]|[a-zA-Z)]\(|sqrt|pi\b|\d\)")
UNIT_POWER = re.compile(r"(?:mm|cm|dm|km|m|in|ft|yd|mi|s)\^?\{?[23]\}?|[a-zA-Z]{1,2}/[a-zA-Z]{1,3}")
FIRST = re.compile(r"\W*(?:(?:so|thus|therefore|hence|then|only|exactly)\b\W*)*$", re.IGNORECASE)
PRONOUN = re.compile(
    r"\b(?:(?<!\bonly )(?<!\bis )(?<!\bhas )(?<!\bjust )(?<!\bexactly )(?<!\bequals )one(?![-\s](?:hundred"
    r"|thousand|million|half|third|quarter|and\b|\w+th\b))"
    r"|one (?:way|thing|solution|of)|one of|one can|one could|one may|one must|one (?:sees?|gets?|has"
    r"|needs)|no one|this one|that one|the one"
    r"|which one|each one|(?:of |between |which |these |those |the |both |other |all )(?:two|three|four|five))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Value:
    """A value in a sentence: where it stands, and its text as an answer."""

    start: int
    end: int
    text: str
    is_number: bool


def values_in(sentence: str, formulas: list[str]) -> list[Value]:
    """The values of a sentence in order, where they stand.

    Numbers in words count where there are no others, or where one stands first of all.

    Example:
        >>> [value.text for value in values_in("It is minus 8, or 3π, or x^2 + 1 in the ratio 3:1.", [])]
        ['-8', '3π', 'x^2 + 1', '3:1']
        >>> [value.text for value in values_in("About two and a half hours.", [])]
        ['5/2']
    """
    found: list[Value] = []
    named: list[Value] = []
    for match in MASK.finditer(sentence):
        percent = r"\%" if PERCENT_AFTER.match(sentence, match.end()) else ""
        found.append(Value(match.start(), match.end(), formulas[int(match[1])] + percent, is_number=False))
    taken = bytearray(len(sentence))
    for value in found:
        taken[value.start : value.end] = b"\1" * (value.end - value.start)
    for pattern in (POINT, RATIO, TWO_UNITS, EXPRESSION, NUMBER):
        for match in pattern.finditer(sentence):
            if pattern is EXPRESSION and not _is_expression(sentence, match):
                continue
            if not any(taken[match.start() : match.end()]):
                found.append(_value(sentence, match))
                taken[match.start() : match.end()] = b"\1" * len(match[0])
    first = min((value.start for value in found), default=len(sentence))
    for value in numbers_in_words(sentence):
        if not found or (value.end <= first and FIRST.match(sentence, 0, value.start)):
            named.append(value)
    return sorted(named + found, key=lambda value: value.start)


def numbers_in_words(sentence: str) -> list[Value]:
    """The numbers that a sentence has in words, pronouns such as "no one" aside.

    Example:
        >>> [value.text for value in numbers_in_words("No one can see the twenty-five cars.")]
        ['25']
    """
    pronouns = [match.span() for match in PRONOUN.finditer(sentence)]
    return [
        Value(match.start(), match.end(), str(value_of(match)), is_number=True)
        for match in NUMBER_WORDS.finditer(sentence)
        if not any(start <= match.start() < end for start, end in pronouns)
    ]


def _value(sentence: str, match: re.Match[str]) -> Value:
    """A number with the sign or the half that words give it; any other value as it stands."""
    start, end, text = match.start(), match.end(), match[0].strip()
    if match.re is RATIO:
        return Value(start, end, text.replace(" to ", ":").replace(" out of ", "/"), is_number=False)
    if match.re is not NUMBER:
        return Value(start, end, text, is_number=False)
    if half := AND_A_HALF.match(sentence, end):
        end, text = half.end(), f"{text}.5"
    if sign := SIGN_WORD.search(sentence[max(0, start - 20) : start]):
        start, text = start - len(sign[0]), f"-{text}"
    return Value(start, end, text, is_number=True)


def _is_expression(sentence: str, match: re.Match[str]) -> bool:
    """Whether a run of tokens is mathematics and no word, unit, number or sum of numbers."""
    text = match[0].strip()
    if not SYMBOL.search(text) or not COMPOSED.search(text) or text.count("(") != text.count(")"):
        return False
    before = sentence[max(0, match.start() - 2) : match.start()]
    return not (UNIT_POWER.fullmatch(text) and before[:1].isdigit())
