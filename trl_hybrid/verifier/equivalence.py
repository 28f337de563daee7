r"""Are two answers equal? By string, then as exact numbers, then part by part, and only then symbolically.

`compare` is pure: what needs a computer algebra system is asked of the function that it is handed. In the main process
that function raises `NeedsAlgebraError`, which sends the pair to a worker; in a worker it is math-verify.
"""

from collections.abc import Callable
from functools import lru_cache

from trl_hybrid.verifier import shapes, units
from trl_hybrid.verifier.guard import is_too_large
from trl_hybrid.verifier.latex import PLAIN_NUMBER, key, normalize
from trl_hybrid.verifier.lead_in import without_lead_in
from trl_hybrid.verifier.numeric import IN_BASE, Number, lacks_base, parse_number, same_number, with_decimal_point
from trl_hybrid.verifier.parts import RULES
from trl_hybrid.verifier.plaintext import to_latex
from trl_hybrid.verifier.verdict import Reason
from trl_hybrid.verifier.words import in_digits


Algebra = Callable[[str, str], bool | None]

BLANK_GOLDS = frozenset({"", "none", "nan", "null", "n/a"})
MAX_DEPTH = 6
QUICK_LENGTH = 300  # characters; longer pairs are compared under a deadline only


class NeedsAlgebraError(Exception):
    """Strings and numbers do not decide this pair."""


def is_blank(gold: str) -> bool:
    """Whether a gold says nothing: empty, "None", "nan".

    Example:
        >>> is_blank(" "), is_blank("NaN"), is_blank("0")
        (True, True, False)
    """
    return gold.strip().lower() in BLANK_GOLDS


def compare(gold: str, answer: str, algebra: Algebra) -> Reason:
    r"""Judge one extracted answer against one gold answer.

    Args:
        gold: The reference's answer.
        answer: The completion's answer.
        algebra: Says whether two LaTeX strings are equal; `None` when the first does not parse.

    Example:
        >>> compare("1,000", "1000.0", algebra=lambda gold, answer: False)
        'numeric'
    """
    if is_blank(gold):
        return "unjudgeable"
    if (reason := _compare_plain(gold, answer)) is not None:
        return reason
    gold, answer = _read(gold), _read(answer)
    if not key(gold):  # of which nothing is left equals all of which nothing is left
        return "unjudgeable"
    if key(gold) == key(answer):
        return "exact"
    if shapes.is_prose(gold):
        return "unjudgeable"
    gold_label, gold_value = shapes.labelled_choice(gold)
    label, value = shapes.labelled_choice(answer)
    if label or gold_label:
        choices = gold_label or shapes.choice(gold), label or shapes.choice(answer)
        if None not in choices:
            return _right_or_wrong(choices[0] == choices[1], "exact")
    return _compare_normal(gold_value, without_lead_in(value), algebra, 0)


@lru_cache(maxsize=256)
def _read(text: str) -> str:
    """An answer in one spelling; the gold of a group is read once."""
    return to_latex(normalize(text))


def _compare_plain(gold: str, answer: str) -> Reason | None:
    """The commonest pair, two numbers in plain digits: they have no other spelling, unit or part."""
    if not (PLAIN_NUMBER.fullmatch(gold) and PLAIN_NUMBER.fullmatch(answer)):
        return None
    if gold == answer:
        return "exact"
    gold_number, answer_number = parse_number(gold), parse_number(answer)
    if gold_number is None or answer_number is None:  # too many digits
        return None
    return _right_or_wrong(same_number(gold_number, answer_number), "numeric")


def compare_without_algebra(gold: str, answer: str) -> Reason | None:
    r"""The reason where strings and numbers decide it, else `None`.

    Example:
        >>> compare_without_algebra("1/2", "0.5"), compare_without_algebra("x+y", "y+x")
        ('numeric', None)
    """
    if len(gold) + len(answer) > QUICK_LENGTH:
        strings = compare_strings(gold, answer)
        return strings if strings == "exact" else None
    try:
        return compare(gold, answer, _no_algebra)
    except NeedsAlgebraError:
        return None


def _no_algebra(gold: str, answer: str) -> bool:
    raise NeedsAlgebraError


def compare_strings(gold: str, answer: str) -> Reason:
    r"""Judge by the normalised string alone.

    Example:
        >>> compare_strings(r"\frac12", r"\dfrac{1}{2}"), compare_strings(r"\frac12", "0.5")
        ('exact', 'mismatch')
    """
    if is_blank(gold) or not key(normalize(gold)):
        return "unjudgeable"
    return _right_or_wrong(key(normalize(gold)) == key(normalize(answer)), "exact")


def _compare_normal(gold: str, answer: str, algebra: Algebra, depth: int) -> Reason:
    """`compare` for parts of answers, which are already normalised."""
    if key(gold) == key(answer):
        return "exact"
    if (reason := _compare_numbers(gold, answer)) is not None:
        return reason

    def part(gold: str, answer: str) -> Reason:
        return _compare_normal(gold, answer, algebra, depth + 1)

    def whole(gold: str, answer: str) -> Reason:
        return _by_algebra(gold, answer, algebra)

    for rule in RULES if depth < MAX_DEPTH else ():
        if (reason := rule(gold, answer, part, whole)) is not None:
            return reason
    return whole(gold, answer)


def _number(text: str) -> Number | None:
    """The number that all of a text is, its unit aside, in digits or in words."""
    for spelling in dict.fromkeys((text, in_digits(text))):
        bare = units.without_unit(spelling)
        readings = (spelling, bare, with_decimal_point(bare), units.without_letter(spelling))
        if number := next(filter(None, map(parse_number, readings)), None):
            return number
    return None


def _compare_numbers(gold: str, answer: str) -> Reason | None:
    if (same := units.same_time(gold, answer)) is not None:
        return _right_or_wrong(same, "numeric")
    if lacks_base(gold, answer):
        return "numeric"
    gold_number, answer_number = _number(gold), _number(answer)
    if gold_number is None or answer_number is None:
        return "mismatch" if any(IN_BASE.fullmatch(text) for text in (gold, answer)) else None
    if units.disagree(in_digits(gold), in_digits(answer)):
        return "mismatch"
    return _right_or_wrong(same_number(gold_number, answer_number), "numeric")


def _right_or_wrong(correct: bool, reason: Reason) -> Reason:
    return reason if correct else "mismatch"


def _by_algebra(gold: str, answer: str, algebra: Algebra) -> Reason:
    if shapes.restates_problem(gold, answer):
        return "not_an_answer"
    if shapes.SIDE_BY_SIDE.search(answer):  # equal strings are right already
        return "mismatch" if shapes.SIDE_BY_SIDE.search(gold) else "not_an_answer"
    if shapes.primes(gold) != shapes.primes(answer):
        return "mismatch"
    gold, answer = units.as_radians(gold, answer)
    if units.disagree(gold, answer):
        return "mismatch"
    if is_too_large(gold):
        return "unjudgeable"
    if is_too_large(answer):
        return "guard"
    correct = algebra(units.without_unit(gold), units.without_unit(answer))
    if correct is None:
        return "unjudgeable" if _number(gold) is None else "mismatch"
    return _right_or_wrong(correct, "symbolic")
