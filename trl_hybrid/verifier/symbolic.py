"""Equality by math-verify, for use inside a worker process only: nothing here bounds time or memory."""

import logging
import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig, normalize_latex
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, _Latex2Sympy
from math_verify.grader import should_treat_as_complex, verify

from trl_hybrid.verifier import shapes
from trl_hybrid.verifier.equivalence import compare
from trl_hybrid.verifier.numeric import Number, parse_number, shown_as
from trl_hybrid.verifier.units import TRIGONOMETRY


Parsed = Any  # sympy's Basic or MatrixBase; its stubs are partial

DIGITS = 30
RELATIVE_TOLERANCE = sympy.Float("1e-12")
NORMALIZATION = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
)
CALLED = re.compile(r"\\[a-zA-Z]+|[a-zA-Z](?=\()")
VARIABLE = re.compile(r"[a-zA-Z](?!\()")
NATURAL = re.compile(r"\\ln(?![a-zA-Z])|(?<![a-zA-Z\\])e\^")
COMMON_LOGARITHM = re.compile(r"\\log(?![a-zA-Z_]|\s*_)")
DECIMALS = re.compile(r"\d*\.(\d+)")
FACTOR_IN_BRACKETS = re.compile(r"(?<=\d)(?<![_^]\d)\s*(?=\(-?\d+\))")  # of 2(3) the parser makes the mixed number 5
UNEVALUATED = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit, sympy.Derivative)
PROBES = (sympy.Rational(13, 11), sympy.Rational(17, 13), sympy.Rational(29, 19))
SMALL_PROBES = (sympy.Rational(3, 7), sympy.Rational(5, 11), sympy.Rational(2, 13))

for name in ("math_verify.parser", "math_verify.grader"):
    logging.getLogger(name).setLevel(logging.ERROR)  # they warn that their own time limit is off


class Converter(_Latex2Sympy):
    """latex2sympy, which hands every number to sympy's reader of Python, a fifth of the time of a pair."""

    def parse_number(self, text: str) -> Parsed:
        """A number's value; a plain integer needs no reader."""
        return sympy.Integer(text) if text.isdecimal() else super().parse_number(text)


def judge(gold: str, answer: str) -> dict[str, Any]:
    """Judge one pair.

    Returns:
        The `reason`; where the rules failed, also the `error`.
    """
    try:
        return {"reason": compare(gold, answer, equal)}
    except MemoryError:
        return {"reason": "memory"}
    except Exception as error:  # noqa: BLE001  # no answer may end a run; the parent counts it and says so
        return {"reason": "error", "error": repr(error)[:500]}


def equal(gold: str, answer: str) -> bool | None:
    """Whether two LaTeX strings are equal by algebra; `None` when the first does not parse."""
    any_case = not (mixes_cases(gold) or mixes_cases(answer))
    gold, answer = alike(gold, answer)
    gold_value = parse(gold, any_case)
    if gold_value is None:
        return None
    answer_value = parse(answer, any_case)
    if answer_value is None:
        return False
    try:
        return _equal_values(gold, answer, gold_value, answer_value)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  # sympy raises whatever it likes on values that it cannot compare
        return False


def alike(gold: str, answer: str) -> tuple[str, str]:
    """Both texts in the notation that the other one shows: what a letter before a bracket is, and which logarithm."""
    variables = {letter for text in (gold, answer) for letter in VARIABLE.findall(shapes.COMMAND.sub(" ", text))}
    texts = [CALLED.sub(lambda match: _times_if(match[0], variables), text) for text in (gold, answer)]
    if any(NATURAL.search(text) for text in texts):
        texts = [COMMON_LOGARITHM.sub(r"\\ln", text) for text in texts]
    return texts[0], texts[1]


def _times_if(called: str, variables: set[str]) -> str:
    """A letter before a bracket as a factor, where it also stands without one; no function does."""
    return rf"{called}\cdot " if called in variables else called


def mixes_cases(text: str) -> bool:
    """Whether a letter stands for two things, as in R + r; elsewhere the case of a variable does not matter."""
    letters = shapes.letters(text)
    return any(letter.lower() in letters for letter in letters if letter.isupper())


@lru_cache(maxsize=1024)
def parse(text: str, any_case: bool = True) -> Parsed | None:
    """The sympy object that a LaTeX string means, decimals exact and i imaginary, or `None`."""
    text = text.replace(r"\gamma", r"\varsigma")  # which the parser takes for the gamma function
    text = FACTOR_IN_BRACKETS.sub(r"\\cdot ", text)
    degrees = r"\circ" in text and TRIGONOMETRY.search(text) is not None
    text = normalize_latex(text, NORMALIZATION)
    config = ConversionConfig(lowercase_symbols=any_case)
    try:
        converter = Converter(is_real=not should_treat_as_complex(text), convert_degrees=degrees, config=config)
        value: Parsed = converter.parse(text)
        exact = {number: sympy.Rational(str(number)) for number in value.atoms(sympy.Float)}
        imaginary = {symbol: sympy.I for symbol in value.atoms(sympy.Symbol) if symbol.name == "i"}
        return value.xreplace({**exact, **imaginary})
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  # latex2sympy and antlr raise whatever they like on text that is not mathematics
        return None


def _equal_values(gold: str, answer: str, gold_value: Parsed, answer_value: Parsed) -> bool:
    if isinstance(gold_value, sympy.Equality) and isinstance(answer_value, sympy.Equality):
        return _same_equation(gold_value, answer_value)
    if all(_is_antiderivative(value) for value in (gold_value, answer_value)):
        gold_value, answer_value = (_with_positive_logarithms(value) for value in (gold_value, answer_value))
    if _is_constant(gold_value) and _is_constant(answer_value):
        return _same_constant(gold, answer, gold_value, answer_value)
    if _same_where_positive(gold_value, answer_value):
        return True
    if _differ_at_a_point(gold_value, answer_value):
        return _same_as_shown(gold, answer, gold_value, answer_value)
    if verify([gold_value], [answer_value], timeout_seconds=None):
        return True
    return _same_as_shown(gold, answer, gold_value, answer_value)


def _is_antiderivative(value: Parsed) -> bool:
    """Whether an expression carries a constant of integration."""
    return isinstance(value, sympy.Add) and any(getattr(term, "name", "") in ("c", "C") for term in value.args)


def _with_positive_logarithms(value: Parsed) -> Parsed:
    """An antiderivative with log x for log |x|, of which most sources mean the same."""
    return value.replace(lambda part: isinstance(part, sympy.log), lambda part: sympy.log(_inside(part.args[0])))


def _inside(argument: Parsed) -> Parsed:
    return argument.args[0] if isinstance(argument, sympy.Abs) else argument


def _same_equation(gold: Parsed, answer: Parsed) -> bool:
    """Two equations: one a multiple of the other, or with the same solutions where there are any.

    Two equations that nothing solves would have the same, empty, set.
    """
    sides = [sympy.numer(sympy.together(value.lhs - value.rhs)) for value in (gold, answer)]
    if not any(side.free_symbols for side in sides):
        return False
    quotient = sympy.cancel(sides[0] / sides[1]) if sides[1] != 0 else sympy.nan
    if quotient.is_number:
        return bool(quotient.is_finite and quotient != 0)
    solutions = [sympy.solveset(side, domain=sympy.S.Complexes) for side in sides if len(side.free_symbols) == 1]
    return len(solutions) == 2 and solutions[0] == solutions[1] and isinstance(solutions[0], sympy.FiniteSet)


def _same_where_positive(gold: Parsed, answer: Parsed) -> bool:
    """Whether two expressions with logarithms, roots or arcs on both sides are the same for small positive letters.

    ln(ab) is ln a + ln b only for positive a and b, which the one who writes either of them has in mind.
    """
    if not all(isinstance(value, sympy.Expr) and _is_for_positive(value) for value in (gold, answer)):
        return False
    symbols: list[Parsed] = sorted(gold.free_symbols, key=str)  # pyright: ignore[reportCallIssue, reportArgumentType]
    if not symbols or gold.free_symbols != answer.free_symbols or len(symbols) > len(SMALL_PROBES):
        return False
    for shift in range(len(SMALL_PROBES)):
        point = dict(zip(symbols, SMALL_PROBES[shift:] + SMALL_PROBES[:shift], strict=False))
        values = [value.subs(point).evalf(DIGITS) for value in (gold, answer)]
        if not all(value.is_real and value.is_finite for value in values):
            return False
        if abs(values[0] - values[1]) > RELATIVE_TOLERANCE * (1 + abs(values[0])):
            return False
    return True


def _is_for_positive(value: Parsed) -> bool:
    """Whether an expression has a logarithm, a root or an arc of its letters, and nothing with cases."""
    if value.has(sympy.Abs, sympy.Piecewise, sympy.floor, sympy.sign, *UNEVALUATED):
        return False
    roots = any(power.exp.is_Rational and not power.exp.is_Integer for power in value.atoms(sympy.Pow))
    return roots or value.has(sympy.log, sympy.asin, sympy.acos, sympy.atan)


def _differ_at_a_point(gold: Parsed, answer: Parsed) -> bool:
    """Whether two expressions clearly differ somewhere, which is cheap and spares the costly search for a proof."""
    if not (isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr)):
        return False
    if gold.has(*UNEVALUATED) or answer.has(*UNEVALUATED):
        return False
    symbols: list[Parsed] = sorted(gold.free_symbols | answer.free_symbols, key=str)
    if any(symbol.name.isalpha() and len(symbol.name) > 1 for symbol in symbols):
        return False  # a word, which math-verify compares by its letters
    point = {symbol: PROBES[index % len(PROBES)] + index for index, symbol in enumerate(symbols)}
    values = [value.subs(point).evalf(15) for value in (gold, answer)]
    if not all(value.is_number and value.is_finite for value in values):
        return False
    scale = 1 + abs(values[0]) + abs(values[1])
    return bool(abs(values[0] - values[1]) > sympy.Float("1e-6") * scale)


def _is_constant(value: Parsed) -> bool:
    return isinstance(value, sympy.Expr) and bool(value.is_number)


def _same_constant(gold: str, answer: str, gold_value: Parsed, answer_value: Parsed) -> bool:
    """Two numbers: rationals exactly, a decimal at the precision that it shows, others to a relative 1e-12.

    math-verify's own comparison is absolute: to it every tiny number is zero.
    """
    gold_value, answer_value = gold_value.doit(), answer_value.doit()
    if gold_value.is_Rational and answer_value.is_Rational:
        return bool(gold_value == answer_value)
    if not (gold_value.is_finite and answer_value.is_finite):
        return bool(gold_value == answer_value)
    difference, scale = (gold_value - answer_value).evalf(DIGITS), abs(gold_value).evalf(DIGITS)
    if all(_vanishes(part, scale) for part in difference.as_real_imag()):
        return True
    shown, exact = parse_number(answer), gold_value
    if shown is None:
        shown, exact = parse_number(gold), answer_value
    return shown is not None and exact.is_real is not False and _shows(shown, exact)


def _vanishes(part: Parsed, scale: Parsed) -> bool:
    """Whether a number is zero as far as its evaluation tells: no digit of it is certain, or it is relatively tiny."""
    is_noise = isinstance(part, sympy.Float) and part._prec == 1
    return part == 0 or is_noise or bool(abs(part) <= RELATIVE_TOLERANCE * scale)


def _shows(shown: Number, exact: Parsed) -> bool:
    value = exact.evalf(DIGITS)
    return value.is_real is True and shown_as(Fraction(str(value)), shown)


def _same_as_shown(gold: str, answer: str, gold_value: Parsed, answer_value: Parsed) -> bool:
    """Expressions of which one carries rounded decimals: equal at three points, at the precision that it shows."""
    places = [[len(digits) for digits in DECIMALS.findall(text)] for text in (gold, answer)]
    if bool(places[0]) == bool(places[1]) or min(places[0] + places[1]) < 3:
        return False
    if not (isinstance(gold_value, sympy.Expr) and isinstance(answer_value, sympy.Expr)):
        return False
    difference: Parsed = gold_value - answer_value
    symbols: list[Parsed] = sorted(difference.free_symbols, key=str)
    tolerance = len(places[0] + places[1]) * sympy.Rational(1, 10 ** min(places[0] + places[1]))
    points = [dict(zip(symbols, PROBES[k:] + PROBES[:k], strict=False)) for k in range(len(PROBES))]
    return len(symbols) <= len(PROBES) and all(
        bool(abs(difference.subs(point).evalf()) < tolerance) for point in points
    )
