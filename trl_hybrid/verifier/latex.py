r"""One spelling for answers that are written differently: `\dfrac12`, `½` and `\frac{1}{2}` are the same string."""

import re

from trl_hybrid.verifier.words import VALUES


UNICODE_MATHS = str.maketrans(
    {
        "−": "-", "–": "-", "‐": "-", "‑": "-", "∕": "/", "⁄": "/",
        "×": r"\times ", "÷": r"\div ", "·": r"\cdot ", "⋅": r"\cdot ", "π": r"\pi ",
        "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "∪": r"\cup ",
        "∩": r"\cap ", "∈": r"\in ", "√": r"\sqrt ", "∅": r"\emptyset ", "∠": r"\angle ", "°": r"^\circ ",
        "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "θ": r"\theta ", "λ": r"\lambda ", "φ": r"\phi ",
        "→": r"\to ", "“": '"', "”": '"', "’": "'",
    }
)  # fmt: skip

HEXADECIMAL = re.compile(r"(?<![\w.])0[xX]([0-9a-fA-F]+)(?!\w)")

# In this order; each is one rule.
REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:left|right|middle)(?![a-zA-Z])\s*\.?|\\[bB]ig+[lrm]?(?![a-zA-Z])", ""),
        (r"\\(?:displaystyle|textstyle|limits|nolimits|hfill|normalsize|[lL]arge|LARGE|[hH]uge)(?![a-zA-Z])", ""),
        (r"\\color\{[^{}]*\}|\\textcolor\{[^{}]*\}|\\(?:underline|underbrace)(?=\s*\{)", ""),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\[dt]binom(?![a-zA-Z])", r"\\binom"),
        (r"\{([^{}]*)\\choose(?![a-zA-Z])([^{}]*)\}", r"\\binom{\1}{\2}"),
        (r"(?<!\\)\\!\s*", ""),
        (
            r"(?<=\d)\s*(?:\^\s*\{?\s*(?:\\(?:text|mathrm)\{\s*)?|\\(?:text|mathrm)\{\s*)(?:st|nd|rd|th)(?![a-zA-Z])\s*\}{0,2}",
            "",
        ),
        (r"(?<=\d)\s*(?:st|nd|rd|th)(?![a-zA-Z])", ""),
        (r"\\hspace\*?\{[^{}]*\}|\\(?:checkmark|blacksquare|qed)(?![a-zA-Z])|[✓✔✅]|\(QED\)$", ""),
        (r"^\\text\{\s*(?:about|approximately)\s+(?=\d)", r"\\text{"),
        (r"^(\d+)\s*(?:\\text\{\s*to\s*\}|to(?![a-zA-Z]))\s*(\d+)$", r"\1:\2"),
        (r"\{\s*,\s*\}", ","),
        (r"(?<=\d)(?:\\[,;: ]|~)+(?=\d{3}(?!\d))", ""),
        (r"(?<!\\)\\[,;:> ]|~|\\q?quad|[\t\n]+", " "),
        (
            r"\\(?:textbf|textit|textrm|textnormal|mbox|mathrm|mathbf|mathit|operatorname|bm|boldsymbol)(?=\s*\{)",
            r"\\text",
        ),
        (r"\\le(?:q|qslant)(?![a-zA-Z])|\\leqq|<=|=<", r"\\le "),
        (r"\\ge(?:q|qslant)(?![a-zA-Z])|\\geqq|>=", r"\\ge "),
        (r"\\(le|ge)(?=[a-z](?![a-zA-Z]))(?!q)", r"\\\1 "),
        (r"\\neq(?![a-zA-Z])|\\not\s*=|!=", r"\\ne "),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"\\simeq|\\doteq|\\approxeq|~=", r"\\approx "),
        (r"\\lbrace(?![a-zA-Z])", r"\\{"),
        (r"\\rbrace(?![a-zA-Z])", r"\\}"),
        (r"\\lbrack(?![a-zA-Z])", "["),
        (r"\\rbrack(?![a-zA-Z])", "]"),
        (r"\\(?:lvert|rvert|vert|mid|lVert|rVert|Vert)(?![a-zA-Z])|(?<!\\)\\\|", "|"),
        (r"\\langle(?![a-zA-Z])", "("),
        (r"\\rangle(?![a-zA-Z])", ")"),
        (r"\\colon(?![a-zA-Z])|\\text\{\s*:\s*\}", ":"),
        (r"\\(?:ldots|cdots|dotsc|dotsb)(?![a-zA-Z])|(?<=,)\s*\.{3}", r"\\dots "),
        (r"\\lg(?![a-zA-Z])", r"\\log_{10}"),
        (r"\\equiv(?![a-zA-Z])|(?<![\\a-zA-Z])(?:is )?equals?(?: to)?(?![a-zA-Z])", "="),
        (r"^[\s$]*(?:\\approx|\\text\{\s*(?:approximately|about)\s*\}|(?:approximately|about)(?![a-zA-Z]))\s*", ""),
        (r"\\(?:cdotp|ast)(?![a-zA-Z])|\\bullet", r"\\cdot "),
        (r"\\?\$", ""),
        (r"[\"]", ""),
        (r"[,.;]?\s*(?:\\text\{[,\s]*for (?:all|every|any|each)[^{}]*\}|\\forall).*$", ""),
        # Where a value is taken: "4 at x = 5" is 4.
        (
            r"(?<=[\da-zA-Z)}])[, ]*(?:\\text\{[, ]*(?:at|when|for) *\}|(?<![a-zA-Z\\])(?:at|when|for)(?![a-zA-Z]))"
            r" *[a-zA-Z] ?=[^=]*$",
            "",
        ),
        (r"\\text\{\s*\}", ""),
        (r"\^\s*\{\s*\\(?:circ|degree)\s*\}|\^\s*\\circ(?![a-zA-Z])|\\degree(?![a-zA-Z])", r"^\\circ "),
        (r"(?<![a-zA-Z\\])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\sqrt\s*([0-9a-zA-Z])", r"\\sqrt{\1}"),
        (r"\\frac\s*([0-9a-zA-Z])\s*([0-9a-zA-Z])", r"\\frac{\1}{\2}"),
        (r"\\frac\s*([0-9a-zA-Z])\s*\{", r"\\frac{\1}{"),
        (r"\\frac\s*(\{[^{}]*\})\s*([0-9a-zA-Z])", r"\\frac\1{\2}"),
        (r"\\frac\s+\{", r"\\frac{"),
        (r"(\\frac\{[^{}]*\})\s+\{", r"\1{"),
        (r"\^\s*\{?\s*\\prime(?![a-zA-Z])\s*\}?", "'"),
        (r"\((\w+)\)(?=_\{?\d)", r"\1"),
        (r"\{\{([^{}]*)\}\}", r"{\1}"),
        (r"(\.\d+) ?\\dots ?$", r"\1"),
        (r"\\(?:dot|bar)\{(\d)\}(\d*)\\(?:dot|bar)\{(\d)\}$", r"\\overline{\1\2\3}"),
        (r"^(?:\\text\{ ?)?(?:negative|minus) ?\}? ?(?=[\d.]|\\frac|\\sqrt)", "-"),
        (r"(^|\\(?:cup|in) ?)\](?=[^\[\]()]*[\[\]])", r"\1("),
        (r"(?<=\d|[a-z)}])\[(?=$| ?\\cup)", ")"),
        (r"(?:(?<=^)|(?<=[(\[,=]))\s*\+(?=\s*(?:\d|\\infty))", ""),
        (r"\^\s*(\\frac\{[^{}]*\}\{[^{}]*\})", r"^{\1}"),
        (r"(?<![a-zA-Z}\]^_])\{([0-9a-zA-Z])\}", r"\1"),
        (r"\*\*", "^"),
        (r" {2,}", " "),
    )
)
# A new equation behind nothing but space.
NEXT_EQUATION = re.compile(r"(?<=[^,;\s\\])\s*(?<!\\)\\(?:q?quad\b|[ ;])\s*(?=[a-zA-Z](?:_\{?\w+\}?|\([a-z]\))?\s*=)")
UNICODE_ROOT = re.compile(r"√\s*(\d+(?:\.\d+)?)")
PLAIN_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
SPACED_NUMBER = re.compile(r"-?\d{1,3}(?: \d{3})+")
DOUBLED = re.compile(r"\\\\(?=[a-zA-Z(){}\[\]])")
BACKSLASHES = re.compile(r"\\+")
TRAILING = " .,;:\\"
SPACES = re.compile(" {2,}")
KEY_SPACES = re.compile(r"(?<![A-Za-z0-9])\s+|\s+(?![A-Za-z0-9])")
TEXT_BODY = re.compile(r"\\text\s*\{([^{}]*)\}")
TOKEN = re.compile(r"\\[a-zA-Z]+|\\.", re.DOTALL)
SINGLE_SCRIPT = re.compile(r"([_^])\{(\w|-?\d+)\}")
# A number, or several choices, that stand in \text as a whole.
WHOLE_TEXT = re.compile(
    r"\\text\{\s*(?:\(([-+]?\d[\d.,/]*)\)|([-+]?\d[^{}]*|\(?[A-Z]\)?(?:\s*(?:,|&|and|or)\s*\(?[A-Z]\)?)+))\s*\}"
)
WHOLE_ANSWERS = {
    **dict.fromkeys(
        (r"\mathbb{r}", r"\mathbb r", r"\text{all real numbers}", "all real numbers"), r"(-\infty,\infty)"
    ),
}
EMPTY = r"\emptyset"
NO_SOLUTION = re.compile(
    r"(?:there (?:is|are) |(?:it|(?:the|this) (?:equation|system|inequality)) has )?no (?:real )?(?:solutions?|roots?)"
    r"(?: exists?)?|(?:the )?empty set|none|\\varnothing|\\\{ ?\\\}",
    re.IGNORECASE,
)
BASE = re.compile(
    r"(?<=[0-9A-Z])(?:_ ?\{? ?\\text ?\{ ?(?:base )?([a-z]+|\d{1,2}) ?\} ?\}?"
    r"| ?(?:\\text ?\{)? ?\(?(?:in )?base[ -]?\}? ?([a-z]+|\d{1,2})\)? ?\}?)$"
)
CHOICE = re.compile(r"\(?([A-Za-z])\)?[.:)]?")


def normalize(text: str) -> str:
    r"""The answer in one spelling, still LaTeX that a parser reads.

    Example:
        >>> normalize(r"$\left(\dfrac12,\, \sqrt 3\right)$.")
        '(\\frac{1}{2}, \\sqrt{3})'
        >>> normalize(r"x \leq 5"), normalize(r"32,\! 349"), normalize(r"\\frac{1}{2}"), normalize("-0x1F")
        ('x \\le 5', '32,349', '\\frac{1}{2}', '-31')
    """
    if PLAIN_NUMBER.fullmatch(text):
        return text
    text = UNICODE_ROOT.sub(r"\\sqrt{\1}", text).translate(UNICODE_MATHS)
    runs = BACKSLASHES.findall(text)
    if DOUBLED.search(text) and all(len(run) % 2 == 0 for run in runs):
        text = text.replace("\\\\", "\\")  # escaped twice on its way through JSON
    elif "matrix" not in text and "array" not in text and "cases" not in text:
        text = DOUBLED.sub(r"\\", text)
    # Read as a product, 0x3e and 0x3f are both zero.
    text = HEXADECIMAL.sub(lambda match: str(int(match[1], 16)), text)
    text = NEXT_EQUATION.sub(lambda match: ", " if "=" in text[: match.start()] else match[0], text)
    for pattern, replacement in REWRITES:
        text = pattern.sub(replacement, text)
    text = _without_delimiters(text.strip())
    if whole_text := WHOLE_TEXT.fullmatch(text):
        text = (whole_text[1] or whole_text[2]).strip()
    text = text.rstrip(TRAILING)
    if SPACED_NUMBER.fullmatch(text):
        return text.replace(" ", "")
    if NO_SOLUTION.fullmatch(TEXT_BODY.sub(r"\1", text).strip()):
        return EMPTY
    return WHOLE_ANSWERS.get(text.lower(), BASE.sub(_base, text))


def _base(match: re.Match[str]) -> str:
    """A base as a subscript in digits: "4210 (base seven)" is 4210_{7}."""
    name = match[1] or match[2]
    base = int(name) if name.isdecimal() else VALUES.get(name)
    return match[0] if base is None else f"_{{{base}}}"


def _without_delimiters(text: str) -> str:
    for opening, closing in ((r"\(", r"\)"), (r"\[", r"\]")):
        text = text.removeprefix(opening).removesuffix(closing)
    return text.strip()


def key(text: str) -> str:
    r"""A string that two spellings of the same normalised answer share.

    Example:
        >>> key(r"\text{(C)}") == key("C"), key("4210_{7}") == key("4210_7"), key(r"\text{Yes}") == key("yes")
        (True, True, True)
        >>> key("1 1/2") == key("11/2")
        False
    """
    if PLAIN_NUMBER.fullmatch(text):
        return text
    text = SPACES.sub(" ", TEXT_BODY.sub(lambda match: match[1].lstrip(), text)).strip()
    text = KEY_SPACES.sub("", text)
    text = SINGLE_SCRIPT.sub(r"\1\2", text)
    if choice := CHOICE.fullmatch(text):
        return choice[1]
    text = text.lower() if re.fullmatch(r"[A-Za-z ]{2,}", text) else text
    return text.rstrip(TRAILING) or text


def split_top(text: str, separator: re.Pattern[str]) -> list[str]:
    r"""Parts of `text` between the separators that stand outside every bracket.

    Example:
        >>> split_top("(1,2),3", re.compile(","))
        ['(1,2)', '3']
    """
    if separator.search(text) is None:
        return [text.strip()]
    parts, depth, start, position = [], 0, 0, 0
    while position < len(text):
        if depth == 0 and (match := separator.match(text, position)) and match.end() > position:
            parts.append(text[start:position].strip())
            start = position = match.end()
            continue
        position, depth = _step(text, position, depth)
    parts.append(text[start:].strip())
    return parts


def _step(text: str, position: int, depth: int) -> tuple[int, int]:
    """Advance by one token: an escape, a bracket or a character."""
    if text[position] == "\\":
        token = TOKEN.match(text, position)
        word = token[0] if token else "\\"
        depth += (word in (r"\{", r"\begin")) - (word in (r"\}", r"\end"))
        return position + len(word), max(depth, 0)
    depth += (text[position] in "([{") - (text[position] in ")]}")
    return position + 1, max(depth, 0)
