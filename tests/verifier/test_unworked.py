"""An answer that repeats the question is none, however it is put; one that is worked out is, however it is shown."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_hybrid.verifier import MathVerifier
from trl_hybrid.verifier.unworked import is_arithmetic, leaves_work


PROMPT = "State the final answer to the following arithmetic problem: 22 + 46 ="


@pytest.mark.parametrize(
    "completion",
    [
        # As SmolLM2 wrote them after twenty steps of GRPO.
        "The final answer is 22 + 46.",
        "The final answer is: 22 + 46",
        "The final answer is 22 + 46, which equals 88.",
        "The final answer is 22 + 46 which is 22 + 46.",
        # And what it would have found next.
        "The final answer is 46 + 22.",
        "The final answer is 20 + 48.",
        "The final answer is 34 * 2.",
        "The final answer is 136/2.",
        "The answer is 88 = 22 + 46.",
        "22 + 46",
        r"\boxed{22+46}",
        r"\boxed{(22) + (46)}",
        r"\boxed{x = 22 + 46}",
        r"\boxed{22 + 46 = 46 + 22}",
        r"\boxed{22+46\text{ apples}}",
        r"\boxed{\frac{136}{2}}",
        r"\boxed{70 − 2}",
        r"\boxed{22^1 + 46}",
        r"\boxed{|-22-46|}",
        r"\boxed{\max(68, 3)}",
        r"\boxed{\sqrt{(22+46)^2}}",
    ],
)
def test_the_question_in_other_words_is_no_answer(verifier, completion):
    assert verifier.verify(PROMPT, completion, "68").correct is False


@pytest.mark.parametrize(
    "completion",
    [
        "The final answer is 22 + 46 = 68.",
        "The final answer is 22 + 46, which is 68.",
        r"\boxed{22 + 46 = 68}",
        r"22 + 46 = \boxed{68}",
        "The final answer is 68, since 22 + 46 is that.",
        "68 = 22 + 46",
        r"\boxed{68}",
        r"\boxed{x = 68}",
        r"\boxed{6.8 \times 10^1}",
        r"\boxed{68\text{ apples}}",
    ],
)
def test_what_is_worked_out_is_an_answer(verifier, completion):
    assert verifier.verify(PROMPT, completion, "68").correct is True


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("0.75", r"\frac{3}{4}"), ("1.5", r"1\frac{1}{2}"), ("-5", "-5.0"), (r"96-10\sqrt{21}", r"96 - 10\sqrt{21}"),
        ("x+1", "1+x"), (r"2\sqrt{3}", r"\sqrt{12}"), ("1024", "2^{10}"), ("120", "5!"), ("12", r"2\sqrt{36}"),
        (r"1 \pm \sqrt{19}", r"1 \pm \sqrt{19}"), (r"\frac{1}{6}, \frac{1}{6}", r"\frac{1}{6}, \frac{1}{6}"),
    ],
)  # fmt: skip
def test_forms_of_a_number_that_are_finished_stay_right(verifier, gold, answer):
    assert verifier.verify("What is it?", f"\\boxed{{{answer}}}", gold).correct is True


def test_a_power_or_root_is_the_question_where_the_prompt_has_it(verifier):
    assert verifier.verify("What is 2^10?", r"\boxed{2^{10}}", "1024").correct is False
    assert verifier.verify(r"Find $\sqrt{144}$.", r"\boxed{\sqrt{144}}", "12").correct is False
    assert verifier.verify(r"Find the side of a square of 144.", r"\boxed{\sqrt{144}}", "12").correct is True


def test_without_a_prompt_equality_decides(verifier):
    verdicts = verifier.verify_batch([r"\boxed{3+2}", "Answer \\( (9+1) \\)"], ["5", "$10$"])
    assert [verdict.correct for verdict in verdicts] == [True, True]


def test_the_reason_is_said_and_the_other_methods_are_as_they_were(verifier):
    assert verifier.verify(PROMPT, r"\boxed{22 + 46}", "68").reason == "not_an_answer"
    assert verifier.verify(PROMPT, r"\boxed{22 + 47}", "68").reason == "mismatch"
    with MathVerifier(method="boxed") as boxed:
        assert boxed.verify(PROMPT, r"\boxed{22 + 46}", "22 + 46").correct is True


@pytest.mark.parametrize("answer", ["sqrt(" * 1600 + "1+1", "1" + " " * 9000 + "+1", r"\frac{1}{" * 1000 + "1+1"])
def test_long_answers_are_looked_at_in_no_time(answer):
    start = time.process_time()
    leaves_work("68", answer, PROMPT)
    assert time.process_time() - start < 0.2


def test_a_long_sum_leaves_work_too():
    assert leaves_work("400", "+".join(["1"] * 400), PROMPT)


numbers = st.integers(0, 999)


@given(
    st.lists(st.tuples(st.sampled_from(["+", "-", "*", r"\times", r"\cdot"]), numbers), min_size=1, max_size=4),
    numbers,
)
def test_every_sum_and_product_of_numbers_leaves_work_and_its_value_does_not(steps, first):
    text, value = str(first), Fraction(first)
    total, factor = Fraction(0), value
    for sign, number in steps:
        text += f" {sign} {number}"
        if sign in "+-":
            total, factor = total + factor, Fraction(number if sign == "+" else -number)
        else:
            factor *= number
    value = str(total + factor)
    assert leaves_work(value, text, "")
    assert is_arithmetic(text)
    assert not leaves_work(value, value, "")
    assert not leaves_work(value, f"{text} = {value}", "")
