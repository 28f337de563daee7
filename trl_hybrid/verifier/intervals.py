r"""Inequalities, intervals and set-builder notation. Pure strings."""

import re

from trl_hybrid.verifier.latex import split_top


INEQUALITY = re.compile(r"\\(?:le|ge|ne|leqslant|geqslant|nless|ngtr)(?![a-zA-Z])|<|>")
UNION = re.compile(r"\\cup(?![a-zA-Z])")
SET_BUILDER = re.compile(r"\\\{\s*[a-zA-Z](?:\s*\\in\s*[^|:]*)?\s*[|:]\s*(.+)\\\}")
NOT_EQUAL = re.compile(r"[a-zA-Z]\s*\\ne\s*([^,]+)")


def as_interval(text: str) -> str:
    r"""A one-variable inequality as the interval that it means; any other text unchanged.

    Example:
        >>> as_interval(r"-2 \le x < 7"), as_interval(r"5 \ge x"), as_interval("x > 3"), as_interval("x+y < 3")
        ('[-2,7)', '(-\\infty,5]', '(3,\\infty)', 'x+y < 3')
    """
    signs = INEQUALITY.findall(text)
    parts = split_top(text, INEQUALITY)
    if len(parts) != len(signs) + 1 or any(sign == r"\ne" for sign in signs):
        return text
    if len(parts) == 2 and is_variable(parts[1]) and not is_variable(parts[0]):
        parts, signs = parts[::-1], [_flip(signs[0])]
    if len(parts) == 2 and is_variable(parts[0]) and not is_variable(parts[1]):
        return _half_line(signs[0], parts[1])
    if len(parts) == 3 and is_variable(parts[1]):
        return _between(parts, signs) or text
    return text


def as_point(text: str) -> str:
    r"""A value given to a variable as the set of that point, beside inequalities; any other text unchanged.

    Example:
        >>> as_point("a = 1"), as_point("a < 1")
        ('\\{1\\}', 'a < 1')
    """
    name, equals, value = text.partition("=")
    return rf"\{{{value.strip()}\}}" if equals and is_variable(name) and not INEQUALITY.search(value) else text


def variable_of(text: str) -> str | None:
    """The one-letter variable that an inequality is about."""
    parts = split_top(text, INEQUALITY)
    return next((part for part in parts if is_variable(part)), None) if len(parts) > 1 else None


def is_variable(text: str) -> bool:
    """Whether `text` is one letter, with a subscript or not."""
    return re.fullmatch(r"[a-zA-Z](?:_\{?\w+\}?)?|\\(?:alpha|theta|lambda|mu|phi)", text.strip()) is not None


def _flip(sign: str) -> str:
    return {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}[sign]


def _half_line(sign: str, end: str) -> str:
    bracket = {"<": ")", r"\le": "]", ">": "(", r"\ge": "["}[sign]
    return rf"(-\infty,{end}{bracket}" if sign in ("<", r"\le") else rf"{bracket}{end},\infty)"


def _between(parts: list[str], signs: list[str]) -> str | None:
    if all(sign in (">", r"\ge") for sign in signs):
        parts, signs = parts[::-1], [_flip(sign) for sign in reversed(signs)]
    if not all(sign in ("<", r"\le") for sign in signs):
        return None
    left, right = ("[" if signs[0] == r"\le" else "("), ("]" if signs[1] == r"\le" else ")")
    return f"{left}{parts[0]},{parts[2]}{right}"


def condition(text: str) -> str:
    r"""The inequality inside set-builder notation; any other text unchanged.

    Example:
        >>> condition(r"\{x \in \mathbb{R} | x > 2\}"), condition(r"\{1, 2\}")
        ('x > 2', '\\{1, 2\\}')
    """
    match = SET_BUILDER.fullmatch(text)
    return match[1].strip() if match and INEQUALITY.search(match[1]) else text
