r"""The claim in plain sentences: which formula or number a text without any mark ends up with. Pure strings.

The last sentence that holds a value decides. Checks, asides and questions behind it do not count; a refusal, a blank
left open or a bound makes no claim. In a sentence the last value counts that is not part of a condition, such as the
40 of "3 bars below 40", or of an unfinished sum. Formulas are masked first, so that no rule cuts one in two.
"""

import re
from dataclasses import dataclass

from trl_hybrid.verifier.boxes import PERCENT_AFTER, joined
from trl_hybrid.verifier.latex import split_top
from trl_hybrid.verifier.shapes import EQUALS, is_name


MATH = re.compile(
    r"(?<!\\)\$\$(.+?)(?<!\\)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<!\\)\$([^$\n]+?)(?<!\\)\$",
    re.DOTALL,
)
PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}[,']?\s+[A-Za-z]{2,}|[^\W\d_A-Za-zα-ωΑ-Ω]{2,}")
TEXT_COMMAND = re.compile(r"\\(?:text|mathrm|textbf|mbox|operatorname)\s*\{([^{}]*)\}")

DIGITS = r"(?:\d{1,3}(?:[  ]\d{3})+(?![\d,.]*\d)|\d[\d,]*(?:\.\d+)?|\.\d+)"
NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.,\\^{])(?:(?<![A-Za-z0-9)\]}])[-+])?(?:\\?\$|[€£¥])?"
    rf"(?:\d+ \d+/\d+|{DIGITS}(?:\s?/\s?\d+)?)(?![\d_])"
    r"(?:\s*(?:\\?%|percent\b|pct\b)|\s(?:hundred|thousand|million|billion|trillion)\b)?"
    r"|-?\\[dt]?frac\{-?\d+\}\{\d+\}"
)
POINT = re.compile(r"\((?:\s*-?\d+(?:\.\d+|/\d+)?\s*,)+\s*-?\d+(?:\.\d+|/\d+)?\s*\)")
RATIO = re.compile(r"(?<![\d:.])\d+(?:\s?:\s?\d+)+(?:\s?[AaPp]\.?\s?[Mm]\b\.?)?(?![\d:])")

MASK = re.compile("\ue000(\\d+)\ue001")
SENTENCE_END = re.compile(r"(?<=[.!?])(?:\*{1,2}|[\"')])*\s+|(?<=[。！？])|\n+")
ASIDE = re.compile(
    r"\W*(?:check\b|checking\b|to check|verif|we can verify|let me know|i hope|hope |note\b|feel free|remember)",
    re.IGNORECASE,
)
REFUSAL = re.compile(
    r"\b(?:do not|don't|does not|doesn't|can ?not|can't|could ?n[o']t|could not|unable to|not able to|impossible to"
    r"|not possible to|sorry|not enough|insufficient)\b[^.]*?\b(?:solve|determine|answer|find|know|calculate|compute"
    r"|information|help|tell|figure|provide|assist)",
    re.IGNORECASE,
)
BLANK = re.compile(r"_{2,}|\\_{2,}|\[\s*\]|\.{4,}\s*\w")
NOT_THE_ANSWER = re.compile(
    r"(?:\bor\s+(?:maybe|perhaps|possibly|even)?|\bat (?:least|most)"
    r"|(?:n't|\bnot|\bnever|\bcannot)(?:\s+(?:be|equal|equal to))?"
    r"|\b(?:less|fewer|more|greater|smaller|larger) than)[(\s$]*$",
    re.IGNORECASE,
)
CONCLUDES = re.compile(r"\b(?:so|therefore|thus|hence|total|finally|altogether|answer)\b|=|∴", re.IGNORECASE)
BOLD = re.compile(r"\*\*([^*\n]{1,60})\*\*")

# Conditions, by what stands before their number.
CONDITION = re.compile(
    r"(?:\b(?:below|above|under|over|beyond|than|first|last|next|every|each|per|within|between|out of|of the|horse"
    r"|number|problem|question|step|case|part|day|year|page|in|on|after|before|until|since|during|with|transport)|#)"
    r"\s*(?:about|exactly|only|all|the|a|an|year|size)?\s*#?$",
    re.IGNORECASE,
)
RELATIVE = re.compile(
    r"\b(?:that|who|which|whose|where|with (?:a |an )?\w+s? (?:\w+ )?(?:above|below|than|over|under))\b"
)
SUBORDINATE = re.compile(
    r",\s*(?:one|with|which|where|since|because|while|whereas|compared|as|given)\b", re.IGNORECASE
)
STATES = re.compile(r"\b(?:is|are|was|were|equals?|costs?|makes?|gives?)\b[^a-z]*$|=\s*$", re.IGNORECASE)
THERE_ARE = re.compile(
    r"\bthere (?:are|is|were|was|will be|would be)\s+(?:only |exactly |a total of )*$", re.IGNORECASE
)
ASIDE_IN_BRACKETS = re.compile(r"\([^()]*[A-Za-z]{3,}[^()]*\)")
OPERATOR_BEFORE = re.compile(r"[\w)\]}|!%\ue001]\s*(?:[-+*/^×·÷−|]|\\times|\\cdot|\\div)\s*\(*$")
OPERATOR_AFTER = re.compile(r"\s*(?:[+*/^×·÷]|\\times|\\cdot|\\div)\s*[\w\\($\ue000]")
AND = re.compile(r"^\s*(?:,|,?\s*and)\s*(?:[a-zA-Z](?:_\{?\d\}?)?\s*=\s*)?$")
LATER_CLAUSE = re.compile(r"[,;]\s*(?:so|then|thus|hence|therefore|and so|which gives)\b\s*", re.IGNORECASE)

SMALL = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
WORD_VALUES = {word: value for value, word in enumerate(SMALL)} | {word: 20 + 10 * i for i, word in enumerate(TENS)}
ONES = "|".join(SMALL[1:10])
NUMBER_WORD = re.compile(
    rf"\b(?:(negative|minus)\s+)?(?:({'|'.join(TENS)})(?:[-\s]({ONES}))?|({'|'.join(SMALL)}))(?:\s+(hundred|thousand|million))?\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Value:
    """A value in a sentence: where it stands, and its text as an answer."""

    start: int
    end: int
    text: str
    is_number: bool


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
        if ASIDE.match(sentence) or sentence.rstrip().endswith(("?", "？")):
            continue
        if not values_in(sentence, formulas) and not REFUSAL.search(sentence):
            continue
        bold = _bold_before(sentences[: number + 1], formulas)
        return claim_of(sentence, formulas) if bold is None else bold
    return None


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
    if REFUSAL.search(sentence) or BLANK.search(sentence):
        return None
    sentence = ASIDE_IN_BRACKETS.sub(lambda match: " " * len(match[0]), sentence)
    values = values_in(sentence, formulas)
    if not values:
        return None
    counted = next((value for value in values if THERE_ARE.search(sentence[: value.start])), None)
    if counted is not None:
        return counted.text
    values = _of_main_clause(sentence, values)
    chosen = next((value for value in reversed(values) if not _is_condition(sentence, value)), values[-1])
    before = sentence[max(0, chosen.start - 24) : chosen.start]
    if NOT_THE_ANSWER.search(before) and chosen.is_number:
        return None
    if chosen.is_number and (OPERATOR_BEFORE.search(before) or OPERATOR_AFTER.match(sentence, chosen.end)):
        return None
    return _with_its_list(sentence, values, chosen)


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
    return CONDITION.search(sentence[max(0, value.start - 30) : value.start]) is not None


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


def values_in(sentence: str, formulas: list[str]) -> list[Value]:
    """The values of a sentence in order: formulas, points, ratios and numbers, or else numbers in words."""
    found: list[Value] = []
    for match in MASK.finditer(sentence):
        percent = r"\%" if PERCENT_AFTER.match(sentence, match.end()) else ""
        found.append(Value(match.start(), match.end(), formulas[int(match[1])] + percent, is_number=False))
    for pattern in (POINT, RATIO, NUMBER):
        for match in pattern.finditer(sentence):
            if not any(value.start < match.end() and match.start() < value.end for value in found):
                found.append(Value(match.start(), match.end(), match[0], is_number=pattern is NUMBER))
    if not found:
        found = [Value(m.start(), m.end(), str(word_value(m)), is_number=True) for m in NUMBER_WORD.finditer(sentence)]
    return sorted(found, key=lambda value: value.start)


def word_value(match: re.Match[str]) -> int:
    """The number that words name.

    Example:
        >>> [word_value(NUMBER_WORD.search(words)) for words in ("twenty-five", "minus three", "two hundred")]
        [25, -3, 200]
    """
    sign, tens, ones, small, scale = (group.lower() if group else None for group in match.groups())
    value = WORD_VALUES[tens] + WORD_VALUES.get(ones or "", 0) if tens else WORD_VALUES[small or "zero"]
    scales = {None: 1, "hundred": 100, "thousand": 1000, "million": 10**6}
    return value * scales[scale] * (-1 if sign else 1)


def without_delimiters(text: str) -> str:
    """Text without the mathematics delimiters that enclose all of it."""
    text = text.strip()
    match = MATH.fullmatch(text.rstrip(". "))
    return next(group for group in match.groups() if group is not None).strip() if match else text
