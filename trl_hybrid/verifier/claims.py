"""What one sentence claims: its last value that is neither given, nor denied, nor the end of an unfinished sum."""

import re

from trl_hybrid.verifier import wordings
from trl_hybrid.verifier.boxes import joined
from trl_hybrid.verifier.clauses import (
    KNOWN,
    OPERATOR_AFTER,
    OPERATOR_BEFORE,
    condition_rank,
    last_of_the_freest,
    of_main_clause,
    text_before,
    without_parts,
    without_restatements,
)
from trl_hybrid.verifier.latex import split_top
from trl_hybrid.verifier.shapes import EQUALS, LIST, is_name
from trl_hybrid.verifier.values import Value, numbers_in_words, values_in


AND = re.compile(r"^\s*(?:,|,?\s*and)\s*(?:[a-zA-Z](?:_\{?\d\}?)?\s*=\s*)?$")


def claim_of(sentence: str, formulas: list[str]) -> str | None:
    """The value that one sentence claims."""
    if wordings.REFUSAL.search(sentence) and not (sentence := _behind_refusal(sentence)):
        return None
    if wordings.BLANK.search(sentence) or wordings.DOUBTED.search(sentence):
        return None
    for aside in (wordings.ASIDE_IN_BRACKETS, wordings.WORKING_BEHIND):
        sentence = aside.sub(lambda match: " " * len(match[0]), sentence)
    values = [
        value
        for value in values_in(sentence, formulas)
        if not wordings.NAMES_ONLY.search(text_before(sentence, value))
    ]
    if not values:
        return None
    values = [value for value in values if not wordings.SET_AGAINST.search(text_before(sentence, value))] or values
    values = without_restatements(sentence, without_parts(sentence, of_main_clause(sentence, values)))
    counted = next((value for value in values if wordings.THERE_ARE.search(text_before(sentence, value))), None)
    if counted is not None and not (
        OPERATOR_AFTER.match(sentence, counted.end) or wordings.COMES_TO.search(sentence, counted.end)
    ):
        return counted.text
    chosen = last_of_the_freest(sentence, values)
    if condition_rank(sentence, chosen) >= KNOWN:  # "The 28 people need six cars"
        values = sorted([chosen, *numbers_in_words(sentence)], key=lambda value: value.start)
        chosen = last_of_the_freest(sentence, values)
    return None if _is_denied(sentence, chosen) else _with_its_list(sentence, values, chosen)


def _behind_refusal(sentence: str) -> str:
    """What a sentence says after all: "It cannot be seen at once, but the total is 42."."""
    rest = wordings.BUT.split(sentence)[-1]
    return "" if rest == sentence or wordings.REFUSAL.search(rest) else rest


def _is_denied(sentence: str, chosen: Value) -> bool:
    """Whether a value is only a bound, what the answer is not, or the end of an unfinished operation."""
    before = text_before(sentence, chosen)
    if chosen.is_number and wordings.NOT_THE_ANSWER.search(before) and not wordings.OR_RESULT.search(before):
        return True
    if wordings.DENIED_BEHIND.match(sentence, chosen.end):
        return True
    operand = OPERATOR_BEFORE.search(text_before(sentence, chosen, reach=80))
    return chosen.is_number and bool(operand or OPERATOR_AFTER.match(sentence, chosen.end))


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


def solves_on(text: str) -> bool:
    """Whether a list of equations is a step and its solution: "3x = 21, and x = 7"; x = 7 and y = 2 are one answer."""
    heads = [split_top(part, EQUALS) for part in split_top(text, LIST) if part]
    named = [is_name(head[0]) for head in heads]
    return len(heads) > 1 and all(len(head) > 1 for head in heads) and named[-1] and not all(named)
