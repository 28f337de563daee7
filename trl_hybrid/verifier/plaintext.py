r"""Mathematics in the notation of programs, as LaTeX: `3*cos(sqrt(x))` and `x**2*exp(-x)` as a parser reads them.

Python's, sympy's and calculators' notation: functions without a backslash, `pi`, `oo`, powers with round brackets.
"""

import re

from trl_hybrid.verifier.latex import split_top


FUNCTIONS = {
    **{name: rf"\{name}" for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "ln")},
    **{f"a{name}": rf"\arc{name}" for name in ("sin", "cos", "tan", "cot", "sec", "csc")},
    **{f"arc{name}": rf"\arc{name}" for name in ("sin", "cos", "tan", "cot", "sec", "csc")},
    "log": r"\log",
    "exp": r"\exp",
    "sqrt": r"\sqrt",
    "Abs": "|",
    "abs": "|",
    "Integral": r"\int",
    "cbrt": r"\sqrt[3]",
    "factorial": "!",
    "binomial": r"\binom",
}
CALL = re.compile(rf"(?<![a-zA-Z\\])({'|'.join(sorted(FUNCTIONS, key=len, reverse=True))})\s*(?=\()")
NAMED = re.compile(r"\\(?:text|operatorname)\s*\{\s*((?:a|arc)(?:sin|cos|tan|cot|sec|csc)|sec|csc|cot)\s*\}")
CONSTANTS = re.compile(r"(?<![a-zA-Z\\])(pi|oo|infinity|theta|alpha|beta|lambda)(?![a-zA-Z])", re.IGNORECASE)
BARE_FUNCTION = re.compile(
    r"(?<![a-zA-Z\\])((?:arc)?(?:sin|cos|tan|cot|sec|csc)|ln|log)(?=\^|\s*(?:\d|\\|[a-zA-Z](?![a-zA-Z])))"
)
EULER = re.compile(r"(?<![a-zA-Z\\\d])E(?=\^)")
POWER = re.compile(r"\^\s*(?=\()")
COMMA = re.compile(",")


def to_latex(text: str) -> str:
    r"""The same mathematics with functions, powers and constants as LaTeX writes them; LaTeX stays as it is.

    Example:
        >>> to_latex("3*cos(sqrt(7)*t)"), to_latex("e^(-2*x)"), to_latex("exp(4*x)"), to_latex("2pi")
        ('3*\\cos(\\sqrt{7}*t)', 'e^{-2*x}', 'e^{4*x}', '2\\pi ')
        >>> to_latex(r"\sin x + e^{x}"), to_latex("spinning")
        ('\\sin x + e^{x}', 'spinning')
    """
    text = NAMED.sub(lambda found: FUNCTIONS[found[1]] + " ", text)
    position = 0
    while match := CALL.search(text, position):
        if (end := _closing(text, match.end())) is None:
            position = match.end()
            continue
        call = _call(match[1], text[match.end() + 1 : end])
        text = text[: match.start()] + call + text[end + 1 :]
        position = match.start() + 1
    while (match := POWER.search(text)) and (end := _closing(text, match.end())) is not None:
        text = f"{text[: match.start()]}^{{{text[match.end() + 1 : end]}}}{text[end + 1 :]}"
    text = EULER.sub("e", text)
    text = CONSTANTS.sub(lambda found: rf"\{_constant(found[1])} ", text)
    return BARE_FUNCTION.sub(lambda found: FUNCTIONS[found[1]] + " ", text)


def _constant(name: str) -> str:
    return "infty" if name.lower() in ("oo", "infinity") else name.lower()


def _integral(arguments: str) -> str:
    """Integral(f, x) and Integral(f, (x, a, b)) of sympy."""
    integrand, *variables = split_top(arguments, COMMA)
    variable, *limits = [part.strip() for part in variables[0].strip("()").split(",")] if variables else ["x"]
    bounds = f"_{{{limits[0]}}}^{{{limits[1]}}}" if len(limits) == 2 else ""
    return rf"\int{bounds} {integrand} d{variable}"


def _call(name: str, inside: str) -> str:
    if name == "Integral":
        return _integral(inside)
    if name in ("sqrt", "cbrt"):
        return rf"{FUNCTIONS[name]}{{{inside}}}"
    if name == "factorial":
        return f"({inside})!"
    if name == "binomial" and len(parts := split_top(inside, COMMA)) == 2:
        return rf"\binom{{{parts[0]}}}{{{parts[1]}}}"
    if name == "exp":
        return f"e^{{{inside}}}"
    if name in ("Abs", "abs"):
        return f"|{inside}|"
    return f"{FUNCTIONS[name]}({inside})"


def _closing(text: str, opening: int) -> int | None:
    """Position of the bracket that closes the one at `opening`."""
    depth = 0
    for position in range(opening, len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if depth == 0:
            return position
    return None
