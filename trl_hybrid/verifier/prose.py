r"""The claim in plain sentences: which formula or number a text without any mark ends up with. Pure strings.

The last sentence that holds a value decides. Checks, asides and questions behind it do not count; a refusal, a blank
left open or a bound makes no claim. In a sentence the last value counts that is not part of a condition, such as the
40 of "3 bars below 40", or of an unfinished sum. Formulas are masked first, so that no rule cuts one in two.
"""

import re

from trl_hybrid.verifier import wordings
from trl_hybrid.verifier.claims import claim_of
from trl_hybrid.verifier.layout import without_list_markers
from trl_hybrid.verifier.values import MASK, values_in


MATH = re.compile(
    r"(?<!\\)\$\$(.+?)(?<!\\)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<!\\)\$([^$\n]+?)(?<!\\)\$(?!\d)",
    re.DOTALL,
)
PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}[,']?\s+[A-Za-z]{2,}|[^\W\d_A-Za-zα-ωΑ-Ω]{2,}")
TEXT_COMMAND = re.compile(r"\\(?:text|mathrm|textbf|mbox|operatorname)\s*\{([^{}]*)\}")

SENTENCE_END = re.compile(r"(?<=[.!?])(?<!\bi\.e\.)(?<!\be\.g\.)[*\"')]*\s+|(?<=[。！？])|\n+")
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

    text = without_list_markers(text)
    sentences = [part for part in SENTENCE_END.split(MATH.sub(mask, text)) if part and part.strip()]
    for number in range(len(sentences) - 1, -1, -1):
        sentence = sentences[number]
        if is_aside(sentence):
            continue
        if not values_in(sentence, formulas) and not wordings.REFUSAL.search(sentence):
            continue
        bold = _bold_before(sentences[: number + 1], formulas)
        return claim_of(sentence, formulas) if bold is None else bold
    return None


def is_aside(sentence: str) -> bool:
    """Whether a sentence is a check, a courtesy, in brackets or a question, and claims nothing."""
    if wordings.ASIDE.match(sentence) or sentence.rstrip("*_ \n").endswith(("?", "？")):
        return True
    if wordings.CONFIRMS.search(sentence):
        return True
    return wordings.ASIDE_IN_BRACKETS.fullmatch(sentence.strip(" *_.\n")) is not None


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
    parts = wordings.TAKEN_BACK.split(text)
    if len(parts) == 1 or not wordings.CONCLUDES_AGAIN.search(parts[-1]):
        return None
    return last_claim(parts[-1])


def _bold_before(sentences: list[str], formulas: list[str]) -> str | None:
    """A value in bold that nothing behind it draws a conclusion from."""
    for sentence in reversed(sentences):
        for match in reversed(list(wordings.BOLD.finditer(sentence))):
            values = values_in(match[1], formulas)
            if len(values) == 1 and not re.search(r"[A-Za-z]{2,}", MASK.sub("", match[1].replace(values[0].text, ""))):
                return values[0].text
        if wordings.CONCLUDES.search(sentence):
            return None
    return None


def without_delimiters(text: str) -> str:
    """Text without the mathematics delimiters that enclose all of it."""
    text = text.strip()
    match = MATH.fullmatch(text.rstrip(". "))
    return next(group for group in match.groups() if group is not None).strip() if match else text
