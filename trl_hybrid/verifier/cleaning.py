"""What of a text are the policy's own words, in one spelling of Unicode. Standard library only."""

import re
import unicodedata


REASONING_END = re.compile(
    r"</(?:think|thinking|thought|reasoning)>|◁/think▷|<\|end_of_thought\|>|<\|channel\|>final<\|message\|>"
)
REASONING_START = re.compile(
    r"<(?:think|thinking|thought|reasoning)>|◁think▷|<\|begin_of_thought\|>|<\|channel\|>analysis<\|message\|>"
)
TURN_TOKEN = re.compile(r"<\|[A-Za-z_▁]{2,30}\|>|</s>|<s>|<eos>|<end_of_turn>|<start_of_turn>")
INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff\ue000\ue001]"
)
# NFKC would make x² into x2 and 1½ into 11⁄2.
SUPERSCRIPTS = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
VULGAR_FRACTIONS = re.compile("[¼½¾⅐-⅞]")


def clean(text: str) -> str:
    r"""Text in NFKC with ASCII digits and without control and zero-width characters.

    Example:
        >>> clean("４２ ٤٢ x² 1½")
        '42 42 x^{2} 1\\frac{1}{2}'
    """
    text = INVISIBLE.sub("", text)
    if text.isascii():
        return text
    text = SUPERSCRIPTS.sub(lambda match: "^{" + unicodedata.normalize("NFKC", match[0]) + "}", text)
    text = VULGAR_FRACTIONS.sub(_spell_fraction, text)
    text = unicodedata.normalize("NFKC", text)
    return "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)


def own_words(text: str, prompt: str) -> str | None:
    """What the policy says as its answer: after its reasoning, before it runs on, without an echo of the prompt."""
    prompt = prompt.strip()
    if prompt and text.lstrip().startswith(prompt):
        text = text.lstrip()[len(prompt) :]
    elif len(prompt) >= 20:
        text = text.replace(prompt, " ")
    if "<" not in text and "◁" not in text:
        return text
    ends = list(REASONING_END.finditer(text))
    if ends:
        text = text[ends[-1].end() :]
    elif REASONING_START.search(text):
        return None
    return _first_turn(text)


def _first_turn(text: str) -> str:
    start = 0
    for token in TURN_TOKEN.finditer(text):
        if turn := text[start : token.start()].removeprefix("assistant").strip():
            return turn
        start = token.end()
    return text[start:].removeprefix("assistant") if start else text


def _spell_fraction(match: re.Match[str]) -> str:
    numerator, _, denominator = unicodedata.normalize("NFKC", match[0]).partition("\u2044")
    return rf"\frac{{{numerator}}}{{{denominator}}}"
