"""Invariants under generated LaTeX and noise."""

import contextlib
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trl_hybrid.verifier import MathVerifier, extract_answer, extract_gold
from trl_hybrid.verifier.equivalence import NeedsAlgebraError, compare
from trl_hybrid.verifier.latex import key, normalize
from trl_hybrid.verifier.numeric import parse_number
from trl_hybrid.verifier.verdict import is_right


ATOMS = [
    "1",
    "2",
    "10",
    "x",
    "y",
    r"\pi",
    r"\frac",
    r"\sqrt",
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "^",
    "_",
    "+",
    "-",
    "=",
    ",",
    r"\,",
]
PIECES = [
    *ATOMS,
    r"\le",
    r"\boxed{",
    r"\text{",
    "$",
    r"\%",
    "!",
    " ",
    "or",
    r"\pm",
    r"\cup",
    r"\begin{pmatrix}",
    "&",
    r"\\",
    ".",
]
latex = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)
noise = st.text(max_size=60)


def no_algebra(gold, answer):
    raise NeedsAlgebraError


@given(st.one_of(latex, noise), st.one_of(latex, noise))
def test_no_text_breaks_extraction_and_comparison(gold, answer):
    found = extract_answer(answer, gold)
    assert found is None or found.text.strip()
    with contextlib.suppress(NeedsAlgebraError):
        judgement = compare(extract_gold(gold), answer, no_algebra)
        assert not is_right(judgement) or answer.strip()


@given(latex)
def test_an_answer_equals_itself_unless_it_says_nothing(text):
    judgement = compare(text, text, no_algebra)
    assert is_right(judgement) is not False


@given(latex)
def test_normalisation_settles(text):
    once = normalize(text)
    assert key(normalize(once)) == key(once) or normalize(normalize(once)) == normalize(once)


@given(st.integers(-(10**12), 10**12))
def test_integers_are_read_with_and_without_separators(value):
    assert parse_number(f"{value:,}").value == parse_number(str(value)).value == value


@given(st.integers(-500, 500), st.integers(1, 500))
def test_fractions_equal_their_reduced_form(numerator, denominator):
    value = Fraction(numerator, denominator)
    reduced = rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    assert is_right(compare(reduced, f"{numerator}/{denominator}", no_algebra))


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_different_integers_are_never_equal(gold, answer):
    assert bool(is_right(compare(str(gold), str(answer), no_algebra))) == (gold == answer)


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=6, unique=True), st.randoms())
def test_a_list_may_be_given_in_any_order_but_a_tuple_may_not(values, random):
    shuffled = random.sample(values, len(values))
    listed = [", ".join(map(str, items)) for items in (values, shuffled)]
    assert is_right(compare(listed[0], listed[1], no_algebra))
    assert bool(is_right(compare(f"({listed[0]})", f"({listed[1]})", no_algebra))) == (values == shuffled)


@given(st.integers(0, 99), st.integers(0, 99))
def test_a_second_candidate_makes_an_answer_wrong(gold, other):
    if gold != other:
        for hedge in (f"{gold} or {other}", f"{other}, {gold}", f"{gold} = {other}", rf"{other} \approx {gold}"):
            assert is_right(compare(str(gold), hedge, no_algebra)) is False


@pytest.mark.slow
@pytest.mark.timeout(400)
@settings(max_examples=300, deadline=10_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(latex)
def test_generated_latex_never_stops_the_workers(verifier, text):
    verdict = verifier.verify("", rf"\boxed{{{text}}}", "x+7")
    assert verdict.reason not in ("timeout", "crash")


def test_a_batch_of_generated_latex_is_judged_without_failures():
    answers = [f"{left}{middle}{right}" for left in ATOMS for middle in ("x", "^", r"\sqrt{") for right in ATOMS[:7]]
    with MathVerifier(num_workers=2) as verifier:
        verdicts = verifier.verify_batch([rf"\boxed{{{answer}}}" for answer in answers], ["x+7"] * len(answers))
    assert {verdict.correct for verdict in verdicts} == {False}
    assert not {"timeout", "crash"} & {verdict.reason for verdict in verdicts}
