"""`strict` and `flexible` beside verl's rules, restated here (verl/utils/reward_score/gsm8k.py, compute_score)."""

import re
import time

import pytest

from trl_hybrid.verifier import MathVerifier


def verl(method, completion, gold):
    """1.0 when verl's scorer calls it right, "form" when it finds another answer, 0.0 when it finds none."""
    tail = completion[-300:]
    if method == "strict":
        found = [token.replace(",", "").replace("$", "") for token in re.findall(r"#### (\-?[0-9\.\,]+)", tail)]
    else:
        found = [token for token in re.findall(r"(\-?[0-9\.\,]+)", tail) if token not in ("", ".")]
    return 0.0 if not found else 1.0 if found[-1] == gold else "form"


TABLE = [
    ("#### 18", "18"),
    ("6 * 3 = 18\n#### 18", "18"),
    ("#### 1,000", "1000"),
    ("#### -3", "-3"),
    ("#### 17\n#### 18", "18"),
    ("#### 42 or 43", "42"),
    ("#### 2.5", "2.5"),
    ("the total is 18", "18"),
    ("it is -3", "-3"),
    ("from x-3", "-3"),
    ("18 apples", "18"),
    ("no number", "18"),
    ("#### -18", "-18"),
    ("#### ,5", "5"),
    ("#### 18,", "18"),
    ("#### 12 #### none", "12"),
    ("6, 7, .", "7"),
    ("a-b-18", "-18"),
    ("5 -18", "-18"),
    ("1,000", "1,000"),
    ("It is 6.", "6."),
    ("1.5.2", "1.5.2"),
    ("$-18", "-18"),
    ("#### eighteen", "18"),
    ("1 " * 300 + "18", "18"),
]


@pytest.mark.parametrize("method", ["strict", "flexible"])
@pytest.mark.parametrize(("completion", "gold"), TABLE)
def test_what_verl_accepts_is_accepted(method, completion, gold):
    verdict = MathVerifier(method=method).verify("", completion, gold)
    assert verdict.correct or verl(method, completion, gold) != 1.0


@pytest.mark.parametrize(
    ("method", "completion", "gold"),
    [
        ("flexible", "So it is 6.", "6"),
        ("flexible", "It costs 1,000", "1000"),
        ("flexible", "It costs 18.00", "18"),
        ("flexible", "It is 5, I think.", "5"),
        ("flexible", "10-3", "3"),
        ("strict", "#### 6.", "6"),
        ("strict", "#### $18", "18"),
        ("strict", "#### 18.00", "18"),
        ("strict", "####18", "18"),
    ],
)
def test_holes_of_verl_are_repaired(method, completion, gold):
    assert verl(method, completion, gold) != 1.0
    assert MathVerifier(method=method).verify("", completion, gold).correct


def test_a_long_run_of_dots_costs_no_time():
    start = time.perf_counter()
    for method in ("strict", "flexible"):
        assert MathVerifier(method=method).verify("", "#### " + "." * 300_000, "18").reason == "no_answer"
    assert time.perf_counter() - start < 2.0


def test_a_minus_between_two_numbers_is_not_a_sign():
    assert verl("flexible", "10-3", "-3") == 1.0
    assert not MathVerifier(method="flexible").verify("", "10-3", "-3").correct


@pytest.mark.parametrize(
    ("method", "completion", "reward"),
    [
        ("strict", "#### 17", 0.1),  # the form, another number
        ("strict", "18", 0.0),  # the number, not the form
        ("flexible", "17", 0.1),
        ("flexible", "eighteen", 0.0),
        ("boxed", r"\boxed{17}", 0.1),
        ("boxed", "The answer is 18", 0.0),
        ("math_verify", r"\boxed{17}", 0.1),
        ("math_verify", "so we have 17", 0.0),
    ],
)
def test_a_wrong_answer_in_the_demanded_form_gets_the_format_reward(method, completion, reward):
    verifier = MathVerifier(method=method, format_reward=0.1)
    assert verifier.verify("", completion, "18").reward == reward
    assert verl(method, completion, "18") == ("form" if reward else 0.0) or method in ("boxed", "math_verify")


def test_boxed_compares_the_normalised_string_of_the_last_box():
    verifier = MathVerifier(method="boxed")
    assert verifier.verify("", r"\boxed{1} then \boxed{\dfrac12}", r"\frac{1}{2}").correct
    assert not verifier.verify("", r"\boxed{0.5}", r"\frac{1}{2}").correct


@pytest.mark.parametrize("method", ["boxed", "strict", "flexible"])
def test_string_methods_start_no_process_and_skip_blank_golds(method):
    verifier = MathVerifier(method=method)
    assert verifier.verify("", r"\boxed{x} #### 1", " ").correct is None
    assert verifier.worker_pids() == []
