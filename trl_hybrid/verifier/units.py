r"""What surrounds a value without being part of it: units, currencies, and clock times."""

import re


TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
NOT_A_UNIT = r"(?!\s*(?:or|and|not|no|is|to|mod|hundred|thousand|million|billion|trillion)\b)"
UNIT_POWER = r"\s*\^\s*(?:\{-?\d\}|-?\d)"
UNITS_TAIL = re.compile(
    rf"(?<=[a-zA-Z\d}}).])\s*(?:(?:(?:/|\\cdot)?\s*\\text\s*\{{{NOT_A_UNIT}(?:[^{{}}\d^]|{UNIT_POWER})*\}}\.?(?:{UNIT_POWER})?\s*)+"
    r"|\^\\circ\s*(?:\\text\{\s*)?[CFK]?\}?)\s*$"
)
SPELLED_OUT = re.compile(r"(?<=\d)\s*\((?!\s*(?:or|and|not|mod)\b)[a-z][a-z -]{2,}\)$")
PLAIN_UNITS = re.compile(
    rf"(?<=\d)\s+(?:{NOT_A_UNIT}[a-zA-Z]{{2,}}\.?\s?){{1,3}}$|(?<=\d)\s+[a-zA-Z]{{1,3}}/[a-zA-Z]{{1,3}}$|(?<=\d)\s*(?:cm|km|mm|kg|ft|mph)(?:\^?\{{?[23]\}}?)?$"
)
CURRENCY = re.compile(
    r"^\s*(?:\\?\$|[€£¥₹]|\\pounds|\\text\{\s*(?:\\?\$|USD|Rs\.?)\s*\})\s*|\s*(?:[€£¥₹]|dollars|cents|euros)\s*$"
)
CLOCK = re.compile(r"(\d{1,2}):(\d{2})\s*(?:\\text\s*\{)?\s*([AaPp])\.?\s?[Mm]\.?\s*\}?")
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
    bare = UNITS_TAIL.sub("", SPELLED_OUT.sub("", CURRENCY.sub("", text))).strip()
    if bare == text:
        bare = PLAIN_UNITS.sub("", text).strip()
    return bare or text


def clock_time(text: str) -> int | None:
    """Minutes after midnight of "20:34" or "08:34 P.M.", `None` for anything else.

    Example:
        >>> clock_time("08:34 P.M.")
        1234
    """
    match = CLOCK.fullmatch(text.strip())
    if match is None:
        return None
    hours, minutes, half = int(match[1]) % 12, int(match[2]), match[3].lower()
    return (hours + 12 * (half == "p")) * 60 + minutes


def unit_of(text: str) -> str | None:
    r"""The unit behind a value where it is a well-known one.

    Example:
        >>> unit_of(r"3 \text{ meters}"), unit_of("3 cm"), unit_of("3 apples"), unit_of("3")
        ('m', 'cm', None, None)
    """
    tail = text[len(without_unit(text)) :]
    if r"\circ" in tail:
        return "degree"
    words = re.findall(r"[a-z]+", tail.replace(r"\text", "").lower())
    return UNIT_OF.get(words[0]) or UNIT_OF.get(words[0].removesuffix("s")) if words else None


def disagree(gold: str, answer: str) -> bool:
    r"""Whether two values carry different well-known units; a missing unit agrees with every other.

    Example:
        >>> disagree("3 cm", r"3 \text{ m}"), disagree("3 cm", "3"), disagree("3 cm", r"3\text{ centimeters}")
        (True, False, False)
    """
    units = unit_of(gold), unit_of(answer)
    return None not in units and units[0] != units[1]
