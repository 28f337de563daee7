"""One answer written in several ways that mean the same, and what is not the answer."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import sympy
from sympy.parsing.sympy_parser import parse_expr


NOTATIONS = ("as given", "LaTeX", "other digits", "sentence", "another's", "changed")
"""Four of what is right, two of what is wrong."""

INTEGER, DECIMAL = re.compile(r"-?\d+"), re.compile(r"-?\d+\.\d+")
FRACTION = re.compile(r"-?\d+/\d+")
EXPRESSION = re.compile(r"[\dA-Za-z+\-*/(). ]+")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a problem: its bare text, the completion that gives it, and how it is written."""

    gold: str
    text: str
    completion: str
    notation: str


def written(gold: str, other: str) -> Iterator[Answer]:
    """Write a gold in each notation that it has, and what is wrong beside it.

    Args:
        gold: As the generator gives it.
        other: The gold of another problem.
    """
    yield Answer(gold, gold, boxed(gold), "as given")
    yield Answer(gold, gold, f"So the answer is {gold}.", "sentence")
    others = {"LaTeX": in_latex(gold), "other digits": other_digits(gold), "changed": changed(gold)}
    for notation, text in others.items():
        if text is not None:
            yield Answer(gold, text, boxed(text), notation)
    if other != gold:
        yield Answer(gold, other, boxed(other), "another's")


def boxed(text: str) -> str:
    """Give an answer as the policy is asked to."""
    return rf"So \boxed{{{text}}}."


def in_latex(gold: str) -> str | None:
    r"""Write an expression in Python's notation as LaTeX; `None` for what is none.

    Example:
        >>> in_latex("3*x**2/4 + C"), in_latex("17/4"), in_latex("6*(98 - 54)"), in_latex("12")
        ('C + \\frac{3 x^{2}}{4}', '\\frac{17}{4}', '6 \\cdot (98 - 54)', None)
    """
    if not EXPRESSION.fullmatch(gold) or not re.search(r"[*/]", gold):
        return None
    if re.search(r"[A-Za-z]", gold) or FRACTION.fullmatch(gold):
        return sympy.latex(parse_expr(gold, evaluate=False))
    return None if "/" in gold or "**" in gold else gold.replace("*", r" \cdot ")


def other_digits(gold: str) -> str | None:
    """Write a number with commas or with zeros behind it, and an expression as it comes out; `None` for a word.

    Example:
        >>> other_digits("12345"), other_digits("42"), other_digits("2.5"), other_digits("6*(98 - 54)")
        ('12,345', '42.0', '2.50', '264')
    """
    if INTEGER.fullmatch(gold):
        return f"{int(gold):,}" if len(gold.lstrip("-")) > 3 else f"{gold}.0"
    if DECIMAL.fullmatch(gold):
        return f"{gold}0"
    if not EXPRESSION.fullmatch(gold) or not re.search(r"[*/]", gold):
        return None
    text = str(sympy.expand(parse_expr(gold)))
    return None if text == gold else text


def changed(gold: str) -> str | None:
    """Change the last digit of what has one.

    Example:
        >>> changed("12"), changed("3*x**2/4 + C"), changed("2.59"), changed("Friday")
        ('13', '3*x**2/5 + C', '2.50', None)
    """
    digits = [*re.finditer(r"\d", gold)]
    if not digits:
        return None
    place = digits[-1].start()
    return f"{gold[:place]}{(int(gold[place]) + 1) % 10}{gold[place + 1 :]}"
