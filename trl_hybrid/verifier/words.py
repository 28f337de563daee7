"""Numbers in English words, as exact fractions: "twenty-five", "minus three", "two and a half". Pure strings."""

import re
from fractions import Fraction


SMALL = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
VALUES = {word: value for value, word in enumerate(SMALL)} | {word: 20 + 10 * i for i, word in enumerate(TENS)}
SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9}
PARTS = {
    **{"half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7},
    **{"eighth": 8, "ninth": 9, "tenth": 10, "twelfth": 12, "hundredth": 100, "thousandth": 1000},
}
UNIT = (
    rf"(?:(?:{'|'.join(TENS)})(?:[-\s](?:{'|'.join(SMALL[1:10])}))?|{'|'.join(sorted(SMALL, key=len, reverse=True))})"
)
SCALE = rf"\s+(?:{'|'.join(SCALES)})\b"
COUNT = rf"(?:{UNIT}|an?(?={SCALE}))"
WHOLE = rf"(?:{COUNT}(?:{SCALE}){{1,2}}(?:\s+and)?\s+){{0,3}}{COUNT}(?:{SCALE}){{0,2}}"
TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
MAX_LENGTH = 100  # characters of an answer that is read for words
PART = rf"(?:{'|'.join(sorted(PARTS, key=len, reverse=True))})s?"
NUMBER_WORDS = re.compile(
    rf"\b(?P<sign>negative\s+|minus\s+)?(?:"
    rf"(?P<whole>{WHOLE})(?:\s+and\s+(?P<more>a|an|one|{UNIT})[-\s](?P<rest>{PART}))?(?![-\s]{PART}\b)"
    rf"|(?P<count>a|an|{UNIT})[-\s](?P<part>{PART})|(?P<half>half))\b",
    re.IGNORECASE,
)


SAID_TWICE = re.compile(r"([^()]+?)\s*\(([^()]+)\)([^()]*)")  # five (5) apples
# Words that are part of the value where they stand behind digits: 5 tenths, 5 feet six inches. Quarters are coins.
PART_OF_VALUE = re.compile(
    rf"\b(?:than|(?:{'|'.join([*SMALL, *TENS, *SCALES])})s?|halves"
    rf"|(?:{'|'.join(part for part in PARTS if part[-1] in 'dh')})s)\b",
    re.IGNORECASE,
)


def value_of(match: re.Match[str]) -> Fraction:
    """The number that a match of `NUMBER_WORDS` names.

    Example:
        >>> [str(value_of(NUMBER_WORDS.search(words))) for words in ("twenty-five", "minus three", "three quarters")]
        ['25', '-3', '3/4']
        >>> [str(value_of(NUMBER_WORDS.search(words))) for words in ("two and a half", "two hundred and five", "half")]
        ['5/2', '205', '1/2']
    """
    named = {name: words.lower() for name, words in match.groupdict().items() if words}
    value = Fraction(0)
    if "whole" in named:
        value += _whole(named["whole"])
    for count, part in (("count", "part"), ("more", "rest")):
        if part in named:
            value += _whole(named[count]) * _part(named[part])
    if "half" in named:
        value += Fraction(1, 2)
    return -value if "sign" in named else value


def number_in_words(text: str) -> Fraction | None:
    """The number that all of a text names.

    Example:
        >>> number_in_words("Twenty-five"), number_in_words("two apples") is None
        (Fraction(25, 1), True)
    """
    match = NUMBER_WORDS.fullmatch(text.strip()) if len(text) <= MAX_LENGTH else None
    return None if match is None else value_of(match)


def in_digits(text: str) -> str:
    r"""An answer with the number that it begins with in digits; a number that is said twice, once only.

    Example:
        >>> in_digits(r"\text{five}"), in_digits("eighteen dollars"), in_digits("five (5) apples")
        ('5', '18 dollars', '5 apples')
        >>> in_digits("5 (five)"), in_digits("five (6)"), in_digits("3 (3)"), in_digits("on five")
        ('5', '5 (6)', '3 (3)', 'on five')
    """
    if len(text) > MAX_LENGTH:
        return text
    text = TEXT.sub(r"\1", text).strip()
    if twice := SAID_TWICE.fullmatch(text):
        named = [number_in_words(twice[1]), number_in_words(twice[2])]
        digits = twice[1] if named[0] is None else twice[2]
        if named.count(None) == 1 and digits.strip() in map(str, named):
            return f"{digits}{twice[3]}"
    match = NUMBER_WORDS.match(text)
    return text if match is None else f"{value_of(match)}{text[match.end() :]}"


def _whole(words: str) -> Fraction:
    total = current = 0
    for word in re.findall("[a-z]+", words):
        if word in SCALES:
            current = max(current, 1) * SCALES[word]
            total, current = (total + current, 0) if SCALES[word] > 100 else (total, current)
        elif word != "and":
            current += VALUES.get(word, 1)
    return Fraction(total + current)


def _part(word: str) -> Fraction:
    return Fraction(1, PARTS[word] if word in PARTS else PARTS[word.removesuffix("s")])
