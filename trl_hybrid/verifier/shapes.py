r"""What kind of thing an answer is: a value, a list, a container, an interval, an equation, a matrix. Pure strings."""

import re
from dataclasses import dataclass
from fractions import Fraction

from trl_hybrid.verifier.latex import key, split_top
from trl_hybrid.verifier.numeric import parse_number


EQUALS = re.compile(r"==?(?!=)")
APPROX = re.compile(r"\\approx(?![a-zA-Z])|\\sim(?![a-zA-Z])")
OPERATION = re.compile(
    r"\\(?:int|iint|oint|sum|prod|lim|det|log|ln|sin|cos|tan)(?![a-zA-Z])|\\frac\{d\^?\d?\w?\}\{d\w(?:\^\d)?\}"
)
PLUS_MINUS = re.compile(r"(?<!\^)[-+]")
COMMA = re.compile(",")
POINT_END = re.compile(r";|,?\s*(?:\\text\{\s*(?:and|or)\s*\}|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z]))\s*")
COLON = re.compile(":")
MODULUS = re.compile(r"\s*(?:\\pmod\s*|\(\s*(?:\\text\{)?\s*\\?b?mod\s*\}?\s*)\{?(\w+)[})]*$")
LIST = re.compile(
    r"\s*(?:(?:[,;]|\\text\{\s*(?:,?\s*(?:and|or)|,)\s*\})\s*)+(?:(?:and|or)(?![a-zA-Z])\s*|\\text\{\s*(?:and|or)\s*\}\s*)?"
    r"|\s*(?<![a-zA-Z\\])(?:and|or)(?![a-z])\s*|(?<=[\d)])or(?=[A-Z\d(\\-])|\s*\\(?:vee|lor|wedge|land)(?![a-zA-Z])\s*"
)
TIGHT_COMMA = re.compile(r",(?=\d)")
GROUPED_COMMA = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
COMMAND = re.compile(r"\\text\s*\{[^{}]*\}|\\[a-zA-Z]+")
MEMBER = re.compile(r"^\s*[a-zA-Z](?:_\{?\w+\}?)?\s*\\in(?![a-zA-Z])\s*")
MATRIX = re.compile(
    r"\\begin\{(?:[pbBvV]?matrix|array)\}(?:\{[clr|]*\})?(.*)\\end\{(?:[pbBvV]?matrix|array)\}", re.DOTALL
)
NAME_COMMANDS = re.compile(
    r"\\(?:text|angle|triangle|overline|overrightarrow|vec|mathbb|tilde|dot|operatorname|mathbf|mathcal|widehat|hat|bar|prime|circ|odot)"
    r"(?![a-zA-Z])"
)
LETTERS = re.compile(
    r"\\(?:alpha|beta|gamma|delta|epsilon|theta|lambda|mu|phi|omega|rho|sigma|tau|Delta|Omega|ell|Phi|varphi|psi|xi|eta|"
    r"min|max|deg|gcd|triangle)(?![a-zA-Z])"
)
INVERSE = re.compile(r"(?<=[a-zA-Z])\^\{-1\}(?=\()")
SUBSCRIPT = re.compile(r"_(?:\{[^{}]*\}|\w)")
ARGUMENTS = re.compile(r"(?<=[a-zA-Z}])\([^()]*\)")
NAME = re.compile(r"[A-Za-z\s|:'{}\[\](),]*[A-Za-z][A-Za-z\s|:'{}\[\](),]*")
SINGLE_LETTER = re.compile(r"[a-zA-Z]")
PRIMES = re.compile(r"([a-zA-Z])((?:'|\^\{?(?:\s*\\prime\s*)+\}?)+)")
DEFINITION = re.compile(r"(?P<name>[a-zA-Z])\((?P<argument>[a-zA-Z])\)\s*=")
RESTATED = re.compile(r"\\(?:int|iint|oint|sum|prod|lim|det|bigcup|bigcap)(?![a-zA-Z])|\\begin\{[vV]matrix\}")
LABELLED = re.compile(
    r"(?:\\text\{)?(?:\(([A-J])\)\s*\}?[\s.:]*|([A-J])\}?[).:]\s*\}?\s*)(?!and\b|or\b)([^\s},+*/^=_].*)"
)
TIMES = re.compile(r"\\(?:cdot|times)(?![a-zA-Z])|\*")
BRACES_AND_SPACE = re.compile(r"[\s{}]")
BRACKETS = re.compile(r"\(([^()+*/-]*)\)")
# Read as a mixed number by latex2sympy, which makes 7 of "3 4".
DECIMAL = r"\d+(?:\.\d+)?"
SIDE_BY_SIDE = re.compile(rf"(?<![\d^_.,{{]){DECIMAL}(?: +{DECIMAL}(?![\d/.])| *\{{{DECIMAL}\}})")
PROSE_GOLD = re.compile(r"(?:[A-Za-z]{2,}[,.!?']?\s+(?:[A-Za-z]\s+)?){3,}[A-Za-z]{2,}")


@dataclass(frozen=True, slots=True)
class Container:
    """Several values in brackets, or side by side without any (`opening` and `closing` empty)."""

    opening: str
    closing: str
    items: tuple[str, ...]

    @property
    def ordered(self) -> bool:
        """Whether the order of the items counts: in brackets, not in braces and not in a bare list."""
        return self.opening in ("(", "[") or self.closing in (")", "]")


def is_name(text: str) -> bool:
    r"""Whether `text` names a quantity: x, f(x), S_{1}, AB, |AB|, (p,q), \angle APC, V_1:V_2.

    Example:
        >>> [is_name(text) for text in ("x", "f(x)", "(p,q)", r"\angle APC", "2x+z", "11a", "x^2")]
        [True, True, True, True, False, False, False]
    """
    if len(text) > 80:
        return False
    text = ARGUMENTS.sub("", SUBSCRIPT.sub("", INVERSE.sub("", LETTERS.sub("x", NAME_COMMANDS.sub("", text)))))
    return NAME.fullmatch(text) is not None


def equation(text: str) -> tuple[str | None, list[str]]:
    r"""The name that an equation gives to its value, and the members of the equation other than names.

    An approximation counts by its exact side.

    Example:
        >>> equation("x = 41 = 42"), equation("2 = x"), equation("2x+z = 1"), equation(r"x = \frac{1}{3} \approx 0.33")
        (('x', ['41', '42']), ('x', ['2']), (None, ['2x+z', '1']), ('x', ['\\frac{1}{3}']))
    """
    text = MEMBER.sub("", text)
    exact, *rounded = split_top(text, APPROX)
    if rounded and not exact:
        exact = rounded[0]
    elif rounded and (is_name(exact) or _are_far_apart(exact, rounded[0])):
        exact = f"{exact}={rounded[0]}"
    members = [member.strip(" &") for member in split_top(exact, EQUALS)]
    if len(members) == 1:
        return None, members
    names = [member for member in members if is_name(member)]
    values = [member for member in members if not is_name(member)]
    if not values:
        return names[0], names[1:]
    return (names[0] if names else None), values


def coordinates(text: str) -> dict[str, str]:
    """The coordinates of one point by their names, single letters; empty where they have none.

    Letters that are neighbours stand in the order of the alphabet, others, such as a line's m and b, as given.

    Example:
        >>> coordinates("(a,b)=(1,2)"), coordinates("y = 3, x = 2"), coordinates("m=1, b=2"), coordinates("(1,2)")
        ({'a': '1', 'b': '2'}, {'x': 'x = 2', 'y': 'y = 3'}, {'m': 'm=1', 'b': 'b=2'}, {})
    """
    name, values = equation(text)
    if name is not None and name.startswith("(") and len(values) == 1 and values[0].startswith("("):
        names, items = split_top(name.strip("() "), COMMA), container(values[0]).items
    else:
        items = container(text).items
        names = [equation(item)[0] or "" for item in items]
    named = dict(zip(names, items, strict=False))
    if not 2 <= len(named) == len(names) == len(items) or not all(SINGLE_LETTER.fullmatch(name) for name in named):
        return {}
    are_neighbours = ord(max(named)) - ord(min(named)) == len(named) - 1
    return dict(sorted(named.items())) if are_neighbours else named


def _are_far_apart(exact: str, rounded: str) -> bool:
    """Whether two numbers differ by more than rounding makes them."""
    numbers = parse_number(exact), parse_number(rounded)
    if numbers[0] is None or numbers[1] is None:
        return False
    return abs(numbers[0].value - numbers[1].value) > max(Fraction(1, 2), abs(numbers[0].value) / 10)


def named_values(text: str) -> str:
    """The values of points whose coordinates are named; any other text unchanged.

    Example:
        >>> named_values("(x, y) = (1, 2)"), named_values("a=1, b=2; a=3, b=2"), named_values("a=1, b=2")
        ('(1, 2)', '(1,2),(3,2)', 'a=1, b=2')
    """
    name, values = equation(text)
    if name is not None and name.startswith("(") and len(values) == 1 and values[0].startswith("("):
        return values[0]
    given = [coordinates(point).values() or split_top(point, COMMA) for point in split_top(text, POINT_END)]
    points = [[equation(item) for item in point] for point in given]
    names = {tuple(name for name, _ in point) for point in points}
    if len(points) < 2 or len(names) > 1 or None in next(iter(names)) or len(next(iter(names))) < 2:
        return text
    return ",".join("(" + ",".join(values[-1] for _, values in point) + ")" for point in points)


def with_one_argument(gold: str, answer: str) -> tuple[str, str]:
    """Two definitions of one function with the argument's name of the first: f(x) = x and f(z) = z say the same.

    Example:
        >>> with_one_argument("f(x)=2x", "f(z)=2z"), with_one_argument("f(x)=2x", "g(z)=2z")
        (('f(x)=2x', 'f(x)=2x'), ('f(x)=2x', 'g(z)=2z'))
    """
    heads = [DEFINITION.match(text) for text in (gold, answer)]
    if None in heads or heads[0]["name"] != heads[1]["name"]:  # pyright: ignore[reportOptionalSubscript]
        return gold, answer
    ours, theirs = (head["argument"] for head in heads if head)
    if ours == theirs or ours in letters(answer):
        return gold, answer
    return gold, re.sub(rf"(?<![a-zA-Z\\]){theirs}(?![a-zA-Z])|(?<=[\da-zA-Z}})]){theirs}(?![a-zA-Z])", ours, answer)


def container(text: str) -> Container:
    r"""The items of a list, tuple, interval or set; one item when it is none of these.

    Example:
        >>> container(r"\{1, 2\}").items, container("1, -2 and 3").items, container("(0,1]").closing
        (('1', '2'), ('1', '-2', '3'), ']')
    """
    text = MEMBER.sub("", text)
    opening, closing, inside = _brackets(text)
    if opening in ("(", "[") and len(split_top(inside, LIST)) > 1 and len(both := _both_signs(text)) > 1:
        return Container("", "", tuple(both))
    # In 1,7,103, 105 no comma groups digits: one that is not followed by a blank separates.
    grouped = ", " in inside and not TIGHT_COMMA.search(GROUPED_COMMA.sub("", inside))
    parts = split_top(GROUPED_COMMA.sub("", inside) if grouped else inside, LIST)
    items = tuple(item for part in parts if part for item in _both_signs(part))
    if opening in ("(", "") and len(items) <= 1:
        return Container("", "", items or (text,))
    if opening == "{":  # TeX's own braces group and mean nothing
        return Container("", "", items)
    return Container(opening, closing, items)


def _brackets(text: str) -> tuple[str, str, str]:
    for opening, closings in ((r"\{", (r"\}",)), ("(", (")", "]")), ("[", ("]", ")")), ("{", ("}",))):
        for closing in closings:
            if text.startswith(opening) and text.endswith(closing) and _encloses(text, len(opening), len(closing)):
                return opening, closing, text[len(opening) : -len(closing)].strip()
    return "", "", text


def _encloses(text: str, opening: int, closing: int) -> bool:
    """Whether the first bracket closes at the very end."""
    inside = text[opening:-closing]
    depth = 0
    for bracket in re.findall(r"\\[a-zA-Z]+|\\[{}]|[()\[\]{}]", inside):
        depth += (bracket in ("(", "[", "{", r"\{")) - (bracket in (")", "]", "}", r"\}"))
        if depth < 0:
            return False
    return depth == 0


def _both_signs(item: str) -> list[str]:
    if item.count(r"\pm") != 1 or r"\mp" in item:
        return [item]
    return [item.replace(r"\pm", sign).strip().removeprefix("+").strip() for sign in ("+", "-")]


def matrix_rows(text: str) -> list[list[str]] | None:
    r"""Cells of a matrix, or `None` when all of the text is not one matrix.

    Example:
        >>> matrix_rows(r"\begin{pmatrix} 1 & x \\ 3 & 4 \end{pmatrix}")
        [['1', 'x'], ['3', '4']]
    """
    match = MATRIX.fullmatch(text.strip())
    if match is None or r"\begin" in match[1]:
        return None
    rows = [row for row in re.split(r"\\\\", match[1]) if row.strip()]
    return [[cell.strip() for cell in row.split("&")] for row in rows]


def residue(text: str) -> tuple[str, str | None]:
    r"""A remainder and its modulus.

    Example:
        >>> residue(r"3 \pmod{7}"), residue("3 (mod 7)"), residue("3")
        (('3', '7'), ('3', '7'), ('3', None))
    """
    match = MODULUS.search(text)
    return (text[: match.start()], match[1]) if match else (text, None)


def is_operation(text: str) -> bool:
    r"""Whether `text` is one operation whose value an equation may state: a limit, a sum, a derivative, a sine.

    Example:
        >>> is_operation(r"\lim_{x \to 0} f(x)"), is_operation(r"\frac{dy}{dx}"), is_operation(r"\sin x + z")
        (True, True, False)
    """
    return OPERATION.match(text) is not None and len(split_top(text, PLUS_MINUS)) == 1


def letters(text: str) -> set[str]:
    r"""The letters that stand for something, commands and words in \text aside.

    Example:
        >>> sorted(letters(r"\sin x + R\text{ cm}"))
        ['R', 'x']
    """
    return set(re.findall(r"[a-zA-Z]", COMMAND.sub("", text)))


def primes(text: str) -> list[str]:
    r"""The letters that carry primes, one for each prime: y'' + y is another expression than y' + y.

    Example:
        >>> primes("y''+x'"), primes("f(x)")
        (['x', 'y', 'y'], [])
    """
    return sorted(letter for letter, marks in PRIMES.findall(text) for _ in re.findall(r"'|\\prime", marks))


def as_written(text: str) -> tuple[str, ...]:
    r"""The factors of an expression as they are written, in any order: 2^3 * 5 is 5 \times 2^3, but not 8 * 5.

    Example:
        >>> as_written(r"5 \times 2^3") == as_written(r"2^{3} \cdot 5"), as_written(r"\sin(30)") == as_written("8 * 5")
        (True, False)
    """
    return tuple(sorted(BRACKETS.sub(r"\1", BRACES_AND_SPACE.sub("", factor)) for factor in TIMES.split(text)))


def literals_disagree(members: list[str]) -> bool:
    """Whether an equation chain states two different numbers, as "x = 41 = 42" does."""
    numbers = [number.value for member in members if (number := parse_number(member)) is not None]
    return len(set(numbers)) > 1


def restates_problem(gold: str, answer: str) -> bool:
    r"""Whether an answer is an unevaluated sum, product, integral, limit or determinant that the gold is not."""
    return RESTATED.search(answer) is not None and RESTATED.search(gold) is None


def labelled_choice(text: str) -> tuple[str | None, str]:
    r"""The label of a choice and what it says: "(D) 42" is the choice D, and its value is 42.

    Example:
        >>> labelled_choice(r"\text{(D)} 42"), labelled_choice("(x) 42")
        (('D', '42'), (None, '(x) 42'))
    """
    match = LABELLED.fullmatch(text)
    if match is None:
        return None, text
    return match[1] or match[2], match[3]


def choice(text: str) -> str | None:
    """The letter of a multiple choice that all of `text` is."""
    letter = key(text)
    return letter if re.fullmatch("[A-J]", letter) else None


def is_prose(text: str) -> bool:
    r"""Whether a gold is a sentence, which no rule can compare; `\text{...}` is an answer in words."""
    return PROSE_GOLD.search(re.sub(r"\\text\{[^{}]*\}", "", text)) is not None and key(text) != ""
