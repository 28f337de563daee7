r"""The boxes of a text: `\boxed{...}`, `\fbox{...}`, `\boxed 5`. Pure strings, standard library only."""

import re

from trl_hybrid.verifier.latex import normalize
from trl_hybrid.verifier.numeric import parse_number


# Begins with letters that are rare in a text, so that a search for it is a search for them; `find_boxes` looks around.
BOX = re.compile(r"box(?:ed)?(?![a-zA-Z])")
COMMAND_BEFORE = re.compile(r"\\[a-z]*$")
BRACE_AFTER = re.compile(r"\s*\{")
OPERAND = r"[-+]?\d+(?:\.\d+)?\s*(?:\\cdot|\\times|[-+*/])?"
FACTOR_BEFORE = re.compile(rf"(?:(?:=|\$|\\\(|\\\[)\s*|(?<!\S)(?=[-+]$))([-+]|{OPERAND})\s*$")
FACTOR_ENDS = frozenset("-+*/0123456789ts")  # what a factor can end with: hardly any box needs the search
# A box as the argument of a command that all of the formula is, or the value of a name: x = \sqrt{\boxed{5}}.
WRAP_BEFORE = re.compile(
    r"(?:(?<![\w})\]])(?:\$|\\\(|\\\[)|\b[a-zA-Z]\s*=)\s*(-?\d*(?:\\sqrt(?:\[\d+\])?|\\[dt]?frac\{[^{}]*\}|\w\^)\{)\s*$"
)
WRAP_AFTER = re.compile(r"\s*\}\s*(?=\$|\\\)|\\\]|$)")
FACTOR_AFTER = re.compile(r"\s*(\\sqrt\s*(?:\{[^{}]*\}|\d)|\\pi(?![a-zA-Z])|\^\s*(?:\{[^{}]*\}|\d))")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
BARE_BOX = re.compile(r"\s*([^\s{}$\\]+)")
SPACING = re.compile(r"\\(?:q?quad|text|mathrm|textbf)(?![a-zA-Z])|\\[,;:!()\[\] ]|[${}\s.*~]")
CONNECTED = re.compile(r"(?:^|\W)(?:and|or)$|[,;&]$|^[,;&]\s*\S{1,12}\s*=$")
# Between two boxes of which the second one is a claim of its own.
ANOTHER_CLAIM = re.compile(
    r"[.!?](?:[\s$*]|\\[)\]])*(?!and\b|or\b)[A-Za-z]"
    r"|\b(?:so|then|thus|hence|therefore|later|finally|next|now|but|however|wait|actually|instead|rather|which|giving)\b",
    re.IGNORECASE,
)
PERCENT_AFTER = re.compile(r"\s*\$?\s*(?:\\?%|(?:percent|pct)\b)")
MAX_JOINED_BOXES = 32


def find_boxes(text: str) -> list[re.Match[str]]:
    r"""The boxes of a text, each from its letters "box" on: `\boxed`, `\fbox`, and `boxed{`; in prose it is a word.

    Example:
        >>> [len(find_boxes(text)) for text in (r"\boxed 5", r"\fbox{7}", "boxed{8}", "a boxed set", "unboxed{1}")]
        [1, 1, 1, 0, 0]
    """
    return [match for match in BOX.finditer(text) if _is_box(text, match)]


def _is_box(text: str, match: re.Match[str]) -> bool:
    start = match.start()
    command = _command_before(text, start)
    if match[0] == "box":
        return command == r"\f"
    if command == "\\":
        return True
    return BRACE_AFTER.match(text, match.end()) is not None and (
        command != "" or not text[start - 1 : start].isalpha()
    )


def _command_before(text: str, start: int) -> str:
    r"""What stands of a command before its letters "box": the backslash, `\f` or nothing."""
    if text[start - 1 : start] == "\\":
        return "\\"
    command = COMMAND_BEFORE.search(text, max(0, start - 12), start)
    return command[0] if command else ""


def last_box(text: str, boxes: list[re.Match[str]], trusted: bool = False) -> str | None:
    """Content of the last balanced box, with the boxes that are joined to it as one list."""
    closing = _matching_braces(text, boxes[0].start()) or _matching_braces(text.replace("\\}", " }"), boxes[0].start())
    contents: list[str] = []
    next_start = len(text)
    for box in reversed(boxes[-10_000:]):
        span = _box_span(text, box.end(), closing, trusted and not contents)
        if span is None:
            continue
        start, end, resume = span
        if contents and (resume > next_start or not joined(text[resume:next_start], trusted)):
            break
        begin = box.start() - len(_command_before(text, box.start()))
        content = _with_factors(text, begin, text[start:end].strip(), resume)
        content += "\\%" if not contents and PERCENT_AFTER.match(text, resume) else ""
        if not any(_is_same(content, other) for other in contents):
            contents.append(content)
        next_start = begin
        if len(contents) > MAX_JOINED_BOXES:
            return contents[0]
    return ",".join(reversed(contents)) if contents else None


def end_of(text: str, box: re.Match[str]) -> int:
    """Where a text goes on behind one of its boxes."""
    span = _box_span(text, box.end(), _matching_braces(text, box.start()), unclosed=False)
    return box.end() if span is None else span[2]


def _with_factors(text: str, begin: int, content: str, resume: int) -> str:
    r"""A box's content with the sign or factor that stands outside of it: -\boxed{3}, 2\boxed{3}\sqrt{5}."""
    if not content:
        return content
    if WRAP_AFTER.match(text, resume) and (wrap := WRAP_BEFORE.search(text, max(0, begin - 40), begin)):
        return f"{wrap[1]}{content}}}"
    window = max(0, begin - 24)
    ends_so = text[window:begin].rstrip()[-1:] in FACTOR_ENDS
    before = FACTOR_BEFORE.search(text, window, begin) if ends_so else None
    after = FACTOR_AFTER.match(text, resume)
    if not (before or after):
        return content
    plain = content.replace(".", "", 1).isdigit() and not (before and before[1][-1].isdigit())
    inside = content if plain and not (after and after[1][0] == "^") else f"({content})"
    times = r"\cdot " if before and before[1][-1].isdigit() else ""
    return (before[1] if before else "") + times + inside + (after[1] if after else "")


def _is_same(content: str, other: str) -> bool:
    """Whether two boxes hold one value, written in two ways."""
    numbers = parse_number(normalize(content)), parse_number(normalize(other))
    return content == other or (None not in numbers and numbers[0].value == numbers[1].value)  # pyright: ignore[reportOptionalMemberAccess]


def _matching_braces(text: str, start: int) -> dict[int, int]:
    """Position of the closing brace for each opening brace from `start` on; escaped braces are not braces."""
    open_braces: list[int] = []
    closing: dict[int, int] = {}
    for match in BRACE.finditer(text, start):
        if match[0] == "{":
            open_braces.append(match.start())
        elif match[0] == "}" and open_braces:
            closing[open_braces.pop()] = match.start()
    return closing


def _box_span(text: str, after: int, closing: dict[int, int], unclosed: bool) -> tuple[int, int, int] | None:
    """Start and end of a box's content and where the text goes on, or `None` when the box is not closed."""
    brace = after
    while brace < len(text) and text[brace].isspace():
        brace += 1
    if text[brace : brace + 1] == "{":
        if brace in closing:
            return brace + 1, closing[brace], closing[brace] + 1
        return (brace + 1, len(text), len(text)) if unclosed else None
    bare = BARE_BOX.match(text, after)
    return None if bare is None else (bare.start(1), bare.end(1), bare.end(1))


def joined(between: str, trusted: bool) -> bool:
    r"""Whether two boxes, or two formulas, are one list.

    Example:
        >>> [joined(text, trusted=False) for text in (r"$ \text{ and } $", r", \quad x_2 = ", "$. Later, $")]
        [True, True, False]
    """
    if trusted and len(between) < 10:
        return True
    if len(between) > 60 or ANOTHER_CLAIM.search(between):
        return False
    return CONNECTED.search(SPACING.sub(" ", between).strip()) is not None
