r"""The claim in plain sentences: which formula or number a text without any mark ends up with. Pure strings.

The last sentence that holds a value decides. Checks, asides and questions behind it do not count; a refusal, a blank
left open or a bound makes no claim. In a sentence the last value counts that is not part of a condition, such as the
40 of "3 bars below 40", or of an unfinished sum. Formulas are masked first, so that no rule cuts one in two.
"""

import re

from trl_hybrid.verifier.boxes import joined
from trl_hybrid.verifier.latex import split_top
from trl_hybrid.verifier.shapes import EQUALS, is_name
from trl_hybrid.verifier.values import MASK, Value, values_in
from trl_hybrid.verifier.wordings import (
    ASIDE,
    ASIDE_IN_BRACKETS,
    BLANK,
    BOLD,
    BUT,
    CONCLUDES,
    CONCLUDES_AGAIN,
    CONDITION,
    CONFIRMS,
    DENIED_BEHIND,
    DOUBTED,
    GIVEN,
    NAMES_ONLY,
    NOT_THE_ANSWER,
    PLACE,
    RATE_BEHIND,
    REFUSAL,
    RELATIVE,
    SET_AGAINST,
    STATES,
    SUBORDINATE,
    TAKEN_BACK,
    THERE_ARE,
)


MATH = re.compile(
    r"(?<!\\)\$\$(.+?)(?<!\\)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<!\\)\$([^$\n]+?)(?<!\\)\$",
    re.DOTALL,
)
PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}[,']?\s+[A-Za-z]{2,}|[^\W\d_A-Za-zα-ωΑ-Ω]{2,}")
TEXT_COMMAND = re.compile(r"\\(?:text|mathrm|textbf|mbox|operatorname)\s*\{([^{}]*)\}")

SENTENCE_END = re.compile(r"(?<=[.!?])[*\"')]*\s+|(?<=[。！？])|\n+")
OPERATOR_BEFORE = re.compile(
    r"[\w)\]}|!%\ue001]\s*(?:[-+*/^×·÷−|]|\\times|\\cdot|\\div|\b(?:plus|times|(?<=\d )minus|(?:divided"
    r"|multiplied) by))\s*\(*$"
    r"|\b(?:multiply|multiplying|divide|dividing)\b[^.,=]*\bby\s*$"
)
OPERATOR_AFTER = re.compile(r"\s*(?:[+*/^×·÷]|\\times|\\cdot|\\div)\s*[\w\\($\ue000]")
AND = re.compile(r"^\s*(?:,|,?\s*and)\s*(?:[a-zA-Z](?:_\{?\d\}?)?\s*=\s*)?$")
LATER_CLAUSE = re.compile(r"[,;]\s*(?:so|then|thus|hence|therefore|and so|which gives)\b\s*", re.IGNORECASE)


def last_claim(text: str) -> str | None:
    """What a text without marks ends up with; `None` where its last sentence with a value makes no claim.

    Example:
        >>> last_claim("There are 3 bars below 40."), last_claim("So 5 + 4 = 9. Check: 9 - 4 = 5.")
        ('3', '9')
        >>> last_claim("The roots are 2 and 3."), last_claim("I cannot solve problem 3."), last_claim("It is 25 cm².")
        ('2,3', None, '25')
    """
    formulas: list[str] = []

    def mask(match: re.Match[str]) -> str:
        if PROSE.search(TEXT_COMMAND.sub("", match[0])):
            return match[0]
        formulas.append(without_delimiters(match[0]))
        return f"\ue000{len(formulas) - 1}\ue001"

    sentences = [part for part in SENTENCE_END.split(MATH.sub(mask, text)) if part and part.strip()]
    for number in range(len(sentences) - 1, -1, -1):
        sentence = sentences[number]
        if is_aside(sentence):
            continue
        if not values_in(sentence, formulas) and not REFUSAL.search(sentence):
            continue
        bold = _bold_before(sentences[: number + 1], formulas)
        return claim_of(sentence, formulas) if bold is None else bold
    return None


def is_aside(sentence: str) -> bool:
    """Whether a sentence is a check, a courtesy, in brackets or a question, and claims nothing."""
    if ASIDE.match(sentence) or sentence.rstrip("*_ \n").endswith(("?", "？")):
        return True
    if CONFIRMS.search(sentence):
        return True
    return ASIDE_IN_BRACKETS.fullmatch(sentence.strip(" *_.\n")) is not None


def without_asides(text: str) -> str:
    """A text without the checks, courtesies and questions at its end.

    Example:
        >>> without_asides("x = 12. Check: 12 + 3 = 15. Any questions?")
        'x = 12.'
    """
    starts = [0, *(match.end() for match in SENTENCE_END.finditer(text))]
    while len(starts) > 1 and is_aside(text[starts[-1] :]):
        text = text[: starts.pop()].rstrip()
    return text


def later_claim(text: str) -> str | None:
    """The conclusion that a text comes to behind a word that takes back what stands before it, if there is one.

    Example:
        >>> later_claim("41. Wait, 6 * 7 = 42. So it is 42."), later_claim("7. Wait, is 7 + 3 = 10? Yes.")
        ('42', None)
    """
    parts = TAKEN_BACK.split(text)
    if len(parts) == 1 or not CONCLUDES_AGAIN.search(parts[-1]):
        return None
    return last_claim(parts[-1])


def _bold_before(sentences: list[str], formulas: list[str]) -> str | None:
    """A value in bold that nothing behind it draws a conclusion from."""
    for sentence in reversed(sentences):
        for match in reversed(list(BOLD.finditer(sentence))):
            values = values_in(match[1], formulas)
            if len(values) == 1 and not re.search(r"[A-Za-z]{2,}", MASK.sub("", match[1].replace(values[0].text, ""))):
                return values[0].text
        if CONCLUDES.search(sentence):
            return None
    return None


def claim_of(sentence: str, formulas: list[str]) -> str | None:
    """The value that one sentence claims."""
    if REFUSAL.search(sentence) and not (sentence := _behind_refusal(sentence)):
        return None
    if BLANK.search(sentence) or DOUBTED.search(sentence):
        return None
    sentence = ASIDE_IN_BRACKETS.sub(lambda match: " " * len(match[0]), sentence)
    values = [value for value in values_in(sentence, formulas) if not NAMES_ONLY.search(_before(sentence, value))]
    if not values:
        return None
    values = [value for value in values if not SET_AGAINST.search(_before(sentence, value))] or values
    counted = next((value for value in values if THERE_ARE.search(_before(sentence, value))), None)
    if counted is not None and not OPERATOR_AFTER.match(sentence, counted.end):
        return counted.text
    values = _of_main_clause(sentence, values)
    chosen = next((value for value in reversed(values) if not _is_condition(sentence, value)), values[-1])
    return None if _is_denied(sentence, chosen) else _with_its_list(sentence, values, chosen)


def _before(sentence: str, value: Value, reach: int = 40) -> str:
    return sentence[max(0, value.start - reach) : value.start]


def _behind_refusal(sentence: str) -> str:
    """What a sentence says after all: "It cannot be seen at once, but the total is 42."."""
    rest = BUT.split(sentence)[-1]
    return "" if rest == sentence or REFUSAL.search(rest) else rest


def _is_denied(sentence: str, chosen: Value) -> bool:
    """Whether a value is only a bound, what the answer is not, or the end of an unfinished operation."""
    if (NOT_THE_ANSWER.search(_before(sentence, chosen)) and chosen.is_number) or DENIED_BEHIND.match(
        sentence, chosen.end
    ):
        return True
    operand = OPERATOR_BEFORE.search(_before(sentence, chosen, reach=80))
    return chosen.is_number and bool(operand or OPERATOR_AFTER.match(sentence, chosen.end))


def _of_main_clause(sentence: str, values: list[Value]) -> list[Value]:
    """The values before a relative or subordinate clause, where there are any, unless the clause states a value."""
    for clause in (RELATIVE, SUBORDINATE):
        for match in clause.finditer(sentence, values[0].end):
            before = [value for value in values if value.end <= match.start()]
            behind = [value for value in values if value.start >= match.end()]
            if before and not any(STATES.search(sentence[match.end() : value.start]) for value in behind):
                values = before
                break
    return values


def _is_condition(sentence: str, value: Value) -> bool:
    before = _before(sentence, value)
    if "=" in value.text and PLACE.search(before):
        return True
    return bool(CONDITION.search(before) or GIVEN.search(before) or RATE_BEHIND.match(sentence, value.end))


def _with_its_list(sentence: str, values: list[Value], chosen: Value) -> str:
    """The chosen value with those that are joined to it as one list."""
    members = [chosen]
    for value in reversed(values[: values.index(chosen)]):
        between = sentence[value.end : members[0].start]
        numbers = value.is_number and chosen.is_number and AND.match(between)
        formulas = not value.is_number and not chosen.is_number and joined(between, trusted=False)
        if not (numbers or formulas) or not _alike(value.text, chosen.text):
            break
        members.insert(0, value)
    return ",".join(member.text for member in members)


def _alike(first: str, second: str) -> bool:
    """Whether two values may be members of one list: both without a name, or both named. 5x = 30 names nothing."""
    heads = [split_top(text, EQUALS) for text in (first, second)]
    return len({len(head) > 1 for head in heads}) == 1 and all(len(head) == 1 or is_name(head[0]) for head in heads)


def without_delimiters(text: str) -> str:
    """Text without the mathematics delimiters that enclose all of it."""
    text = text.strip()
    match = MATH.fullmatch(text.rstrip(". "))
    return next(group for group in match.groups() if group is not None).strip() if match else text
