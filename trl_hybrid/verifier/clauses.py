"""Which values of a sentence its main clause claims, and which are conditions, known, or parts of a total."""

import re

from trl_hybrid.verifier import wordings
from trl_hybrid.verifier.numeric import parse_number, same_number
from trl_hybrid.verifier.values import Value


OPERATOR_BEFORE = re.compile(
    r"[\w)\]}|!%\ue001]\s*(?:[-+*/^×·÷−|]|\\times|\\cdot|\\div|\b(?:plus|times|(?<=\d )minus|(?:divided"
    r"|multiplied) by))\s*\(*$"
    r"|\b(?:multiply|multiplying|divide|dividing)\b[^.,=]*\bby\s*$"
)
OPERAND_BEHIND = re.compile(r"\s*(?:(?:[+*/^×·÷]|\\times|\\cdot|\\div|\s[-−–]\s)\s*[\w\\($\ue000]|[a-z]+\s[+*×·÷]\s)")
EQUALS_BEHIND = re.compile(r"\)*(?:\s[a-z]+)?\s*=")
OPERATOR_AFTER = re.compile(r"\s*(?:[+*/^×·÷]|\\times|\\cdot|\\div)\s*[\w\\($\ue000]")
MAX_PARTS = 12
KNOWN = 2  # the rank from which on a value is likely the problem's


def of_main_clause(sentence: str, values: list[Value]) -> list[Value]:
    """The values outside of subordinate clauses, where there are any, unless a clause behind them states a value."""
    if opening := wordings.OPENING_CLAUSE.match(sentence):
        values = [value for value in values if value.start >= opening.end()] or values
    for clause in (wordings.RELATIVE, wordings.SUBORDINATE):
        for match in clause.finditer(sentence, values[0].end):
            before = [value for value in values if value.end <= match.start()]
            behind = [value for value in values if value.start >= match.end()]
            if before and not any(wordings.STATES.search(sentence[match.end() : value.start]) for value in behind):
                values = before
                break
    end = 0
    for match in wordings.ADDED_CLAUSE.finditer(sentence, values[0].end):
        if match.start() < end:
            continue
        resumed = wordings.RESUMES.search(sentence, match.end())
        end = resumed.start() if resumed else len(sentence)
        outside = [value for value in values if not match.start() <= value.start < end]
        values = outside if any(value.end <= match.start() for value in outside) else values
    return values


def without_parts(sentence: str, values: list[Value]) -> list[Value]:
    """A total without the parts behind it that add up to it: "72 clips: 48 in April and 24 in May"."""
    if not 3 <= len(values) <= MAX_PARTS:
        return values
    numbers = [parse_number(value.text.lstrip("$")) for value in values]
    for index, total in enumerate(numbers[:-2]):
        parts = [number.value for number in numbers[index + 1 :] if number]
        behind = sentence[values[index].end : values[index + 1].start]
        are_parts = total is not None and len(parts) == len(numbers) - index - 1 and sum(parts) == total.value
        if are_parts and wordings.PARTS_FOLLOW.search(behind) and "=" not in sentence[values[index].end :]:
            return values[: index + 1]
    return values


def without_restatements(sentence: str, values: list[Value]) -> list[Value]:
    """Values without those that only say the one before them in another spelling: "1/4, or 25%"."""
    kept = values[:1]
    for value in values[1:]:
        numbers = [parse_number(own.text) for own in (kept[-1], value)]
        is_other_spelling = wordings.OR.fullmatch(sentence, kept[-1].end, value.start) and None not in numbers
        if not (is_other_spelling and same_number(*numbers)):  # pyright: ignore[reportArgumentType]
            kept.append(value)
    return kept


def last_of_the_freest(sentence: str, values: list[Value]) -> Value:
    """The last of the values that are least of all a condition."""
    chosen, lowest = values[-1], 4
    for value in reversed(values):
        if (rank := condition_rank(sentence, value)) < lowest:
            chosen, lowest = value, rank
        if lowest == 0:
            break
    return chosen


def condition_rank(sentence: str, value: Value) -> int:
    """How far a value is from being claimed: 0 free, 1 a share, 2 a rate or what it is for, 3 known or a condition."""
    before = text_before(sentence, value)
    if OPERAND_BEHIND.match(sentence, value.end) or (
        OPERATOR_BEFORE.search(before) and EQUALS_BEHIND.match(sentence, value.end)
    ):
        return 3
    if wordings.LEFT_WITH.search(before):
        return 0
    if "=" in value.text and wordings.PLACE.search(before):
        return 3
    if wordings.CONDITION.search(before) or wordings.GIVEN.search(before):
        return 3
    if (value.is_number and wordings.DEFINITE.search(before)) or wordings.ADJECTIVE_BEHIND.match(sentence, value.end):
        return 3
    if wordings.RATE_BEHIND.match(sentence, value.end):
        return 2
    if wordings.FOR.search(before) and value.is_number and not wordings.MONEY.match(sentence, value.start):
        return 2
    return 1 if wordings.PER_TIME.match(sentence, value.end) or wordings.EACH_BEHIND.match(sentence, value.end) else 0


def text_before(sentence: str, value: Value, reach: int = 40) -> str:
    """What stands before a value, `reach` characters at most."""
    return sentence[max(0, value.start - reach) : value.start]
