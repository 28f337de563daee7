r"""What surrounds a value without being part of it: units, currencies, and clock times."""

import re

from trl_hybrid.verifier.numeric import PERCENT
from trl_hybrid.verifier.words import PART_OF_VALUE


TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
NOT_A_UNIT = r"(?!\s*(?:or|and|not|no|is|to|mod|at least|at most|hundred|thousand|million|billion|trillion)\b)"
NO_OPERATION = r"(?!\s*(?:plus|minus|over|divided|multiplied|squared|cubed|factorial|root|choose)\b)"
# Two letters, or letters without a vowel, are a product of variables, unless they are well known.
SHORT_UNIT = (
    r"(?i:[mcdkn]ms?|in|ft|mi|yds?|gms?|[mk]?g|[mk]gs|lbs?|oz|tbsps?|tsps?|m[ls]|mls|[dc]l|sq(?:ft|m)?|cu|hrs?|yrs?|wks?"
    r"|mths?|[ap]m|mph|kph|kmh|[rb]pm|[kmg]?hz|[kmgt]b|hp|k[wjn]|k?wh|pa|pp|pts?|pcs|cts?)(?![a-zA-Z])"
)
UNIT_WORD = rf"(?:{SHORT_UNIT}|(?=[a-zA-Z]*[aeiouAEIOU])[a-zA-Z]{{3,}}|[a-zA-Z]{{2}}(?=\s[a-zA-Z]{{2}}))"
LETTERS = "[mgshlLNJWV]"
UNIT_POWER = r"\s*\^\s*(?:\{-?\d\}|-?\d)"
UNITS_TAIL = re.compile(
    rf"(?<=[a-zA-Z\d}}).])\s*(?:(?:(?:/|\\cdot)?\s*\\text\s*\{{{NOT_A_UNIT}{NO_OPERATION}(?:[^{{}}\d^]|{UNIT_POWER})*\}}\.?(?:{UNIT_POWER})?\s*)+"
    r"|\^\\circ\s*(?:\\text\{\s*)?[CFK]?\}?)\s*$"
)
SPELLED_OUT = re.compile(r"(?<=\d)\s*\((?=[^()]*[a-z]{3})(?!\s*(?:or|and|not|mod)\b)[a-z][a-z -]{2,}\)$")
TIME = r"(?:second|minute|hour|day|night|week|month|year)"
PLAIN_UNITS = re.compile(
    rf"(?<=\d)\s+{NOT_A_UNIT}{NO_OPERATION}{UNIT_WORD}(?:\.?\s{NOT_A_UNIT}[a-zA-Z]{{2,}}){{0,2}}\.?(?:\s(?:an?|every|each)\s{TIME})?\s?$"
    rf"|(?<=\d)\s*(?:{SHORT_UNIT}|{LETTERS}|[a-zA-Z]{{3,7}})/(?:{SHORT_UNIT}|{LETTERS}|[a-zA-Z]{{3,6}})(?:\^\{{?[23]\}}?)?$"
    r"|(?<=\d)\s*(?:cm|km|mm|kg|ft|mph|sq)(?:\^?\{?[23]\}?)?$"
)
# Behind a space, as units stand: 5m is five times m.
LETTER_UNIT = re.compile(rf"(?<=[\d}}.])\s+{LETTERS}(?:\^\{{?[23]\}}?)?$")
CHINESE_UNIT = re.compile(
    r"(?<=\d)\s*(?:(?![或和与至到非不万亿千百十分半点零一二三四五六七八九])[\u4e00-\u9fff]){1,4}$"
)
CURRENCY = re.compile(
    r"^\s*(?:\\?\$|[€£¥₹]|\\pounds|\\text\{\s*(?:\\?\$|[€£¥₹]|USD|Rs\.?)\s*\}|(?:USD?|EUR|GBP|Rs\.?)\s*(?=\d))\s*"
    r"|\s*(?:[€£¥₹¢]|dollars|cents|euros)\s*$"
)
QUOTIENT_OF_UNITS = re.compile(
    r"(?<=\d)\s*(?:\\frac\{\s*\\text\{[a-zA-Z. ]+\}\s*\}\{\s*\\text\{[a-zA-Z. ]+\}(?:\^\{?\d\}?)?\s*\}"
    r"|\\text\{\s*\\frac\{[a-zA-Z]+\}\{[a-zA-Z]+(?:\^\{?\d\}?)?\}\s*\})\s*$"
)
UNIT_POWER_SHOWN = re.compile(r"\^\s*\{?([23])")
DIMENSIONS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
CLOCK = re.compile(
    r"(?P<hours>\d{1,2})(?::(?P<minutes>[0-5]\d)(?::(?P<seconds>[0-5]\d))?|(?=[^\d:]*[AaPp]\.?\s?[Mm]))"
    r"(?:\s*(?:\\text\s*\{)?\s*(?P<half>[AaPp])\.?\s?[Mm]\.?\s*\}?)?"
)
DEGREES = re.compile(r"([^\\]+|\\frac\{[^{}]*\}\{[^{}]*\})\s*(?:\^\\circ|\\text\{\s*degrees?\s*\}|\s+degrees?)")
HALF_A_DAY = 12 * 3600
# Spellings of units that are confused with one another; other words behind a number are dropped unread.
SPELLINGS = {
    "mm": "mm millimeter millimetre",
    "cm": "cm centimeter centimetre",
    "m": "m meter metre",
    "km": "km kilometer kilometre",
    "in": "in inch inche",
    "ft": "ft foot feet",
    "mi": "mi mile",
    "g": "g gram",
    "kg": "kg kilogram",
    "lb": "lb pound",
    "second": "s sec second",
    "minute": "min minute",
    "hour": "h hr hour",
    "day": "day",
    "week": "week",
    "month": "month",
    "year": "yr year",
    "cent": "cent",
    "dollar": "dollar",
    "degree": "degree deg",
    "radian": "radian rad",
    "liter": "l liter litre",
    "ml": "ml milliliter millilitre",
    "mg": "mg milligram",
    "newton": "n newton",
    "joule": "j joule",
    "watt": "w watt",
    "volt": "v volt",
}
UNIT_OF = {spelling: unit for unit, spellings in SPELLINGS.items() for spelling in spellings.split()}


def without_unit(text: str) -> str:
    r"""The answer without its unit or currency.

    Example:
        >>> [without_unit(text) for text in (r"10 \text{ cm}^2", "10 weeks", r"74^\circ", "1,000.99€")]
        ['10', '10', '74', '1,000.99']
    """
    if TRIGONOMETRY.search(text):
        return text  # the degrees of an angle are part of the value
    bare = CURRENCY.sub("", QUOTIENT_OF_UNITS.sub("", text))
    bare = CHINESE_UNIT.sub("", UNITS_TAIL.sub("", SPELLED_OUT.sub("", bare))).strip()
    if bare == text:
        bare = PLAIN_UNITS.sub("", text).strip()
    if bare != text and PART_OF_VALUE.search(text) and not PART_OF_VALUE.search(bare):
        return text
    return bare or text


def without_letter(text: str) -> str:
    """A value without a unit of one letter, which behind anything but a number may as well be a variable.

    Example:
        >>> without_letter("5 m"), without_letter("25 m^2"), without_letter("5m"), without_letter("5 x")
        ('5', '25', '5m', '5 x')
    """
    return LETTER_UNIT.sub("", text)


def same_time(gold: str, answer: str) -> bool | None:
    """Whether two times of day are the same, `None` where the texts are none. A half of the day may be missing.

    "3:10" may as well be a ratio: it is a time beside one that says so by its seconds, its half of the day or a zero.

    Example:
        >>> same_time("4:30", "4:30:00"), same_time("12:00", "1:00"), same_time("3:30", "03:30 p.m.")
        (True, False, True)
        >>> same_time("08:34 P.M.", "20:34"), same_time("3:10", "6:20") is None
        (True, True)
    """
    times = [CLOCK.fullmatch(text.strip()) for text in (gold, answer)]
    if None in times or not any(time and _says_that_it_is_a_time(time) for time in times):
        return None
    seconds = [_seconds(time) for time in times if time]
    halves = [time["half"] is not None for time in times if time]
    return seconds[0] == seconds[1] or (
        halves[0] != halves[1]
        and max(seconds) - min(seconds) == HALF_A_DAY
        and min(seconds) < HALF_A_DAY
        and all(int(time["hours"]) <= 12 for time in times if time)
    )


def _says_that_it_is_a_time(time: re.Match[str]) -> bool:
    return bool(
        time["seconds"] or time["half"] or (time["minutes"] or "").startswith("0") or time["hours"].startswith("0")
    )


def _seconds(time: re.Match[str]) -> int:
    hours = int(time["hours"])
    if time["half"]:
        hours = hours % 12 + 12 * (time["half"].lower() == "p")
    return hours * 3600 + int(time["minutes"] or 0) * 60 + int(time["seconds"] or 0)


def as_radians(gold: str, answer: str) -> tuple[str, str]:
    r"""Both angles in radians where one is in degrees and the other one speaks of pi.

    Example:
        >>> as_radians(r"\frac{3\pi}{4}", r"135^\circ"), as_radians("90", r"90^\circ")
        (('\\frac{3\\pi}{4}', '(135)\\cdot\\frac{\\pi}{180}'), ('90', '90^\\circ'))
    """
    texts = [gold, answer]
    for own, other in ((0, 1), (1, 0)):
        degrees = DEGREES.fullmatch(texts[own].strip())
        if degrees and r"\pi" in texts[other] and r"\circ" not in texts[other]:
            texts[own] = rf"({degrees[1]})\cdot\frac{{\pi}}{{180}}"
    return texts[0], texts[1]


def unit_of(text: str) -> str | None:
    r"""The unit behind a value where it is a well-known one.

    Example:
        >>> unit_of(r"3 \text{ meters}"), unit_of("3 cm"), unit_of("3 apples"), unit_of("3")
        ('m', 'cm', None, None)
        >>> unit_of("3 cm^2"), unit_of(r"3 \text{ square feet}"), unit_of(r"3\%")
        ('cm^2', 'ft^2', '%')
    """
    if PERCENT.search(text):
        return "%"
    tail = text[len(without_letter(without_unit(text))) :]
    if r"\circ" in tail:
        return "degree"
    words = re.findall(r"[a-z]+", tail.replace(r"\text", "").replace(r"\frac", "").lower())
    power = DIMENSIONS.get(words[0]) if words else None
    words = words[1:] if power else words
    if not words:
        return None
    unit = UNIT_OF.get(words[0]) or UNIT_OF.get(words[0].removesuffix("s"))
    if unit is None:
        return None
    shown = UNIT_POWER_SHOWN.search(tail)
    return unit + (f"^{power or (shown and shown[1])}" if power or shown else "")


def disagree(gold: str, answer: str) -> bool:
    r"""Whether two values carry different well-known units; a missing unit agrees with every other.

    Example:
        >>> disagree("3 cm", r"3 \text{ m}"), disagree("3 cm", "3"), disagree("3 cm", r"3\text{ centimeters}")
        (True, False, False)
    """
    units = unit_of(gold), unit_of(answer)
    if None in units or units[0] == units[1]:
        return False
    return "%" not in units or "degree" in units
