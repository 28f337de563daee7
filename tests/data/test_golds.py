"""A gold must be an answer, and must be called right when it is given back."""

import pytest

from trl_hybrid.data.golds import find_faults, gold_fault
from trl_hybrid.verifier import MathVerifier


@pytest.mark.parametrize(
    "gold",
    ["5", "-1.5", "\\frac{1}{2}", "x+1", "(0,1]", "\\text{Evelyn}", "C", "1, -2", "no solution", "\\infty", "True"],
)
def test_answers_can_be_judged(gold):
    assert gold_fault(gold) is None


@pytest.mark.parametrize(
    ("gold", "fault"),
    [
        ("", "blank"),
        ("None", "blank"),
        ("n/a", "blank"),
        ("proof", "placeholder"),
        ("Notfound.", "placeholder"),
        ("because the sum of the parts is the whole of them", "no final answer"),
        ("We show that the sum is even. Let $n = 2k$, so that $n + n = 4k$ is even as well. " * 9, "no final answer"),
        ("\\frac{1}{2", "does not match itself"),
        ("1" * 10_001, "longer than 10000"),
    ],
)
def test_what_is_no_answer_is_told_by_rule(gold, fault):
    assert fault in gold_fault(gold)


def test_golds_that_only_algebra_finds_unreadable(verifier):
    golds = ["a, b and c are equal", "5", "proof", "x+1", "5"]
    assert gold_fault(golds[0]) is None
    assert find_faults(verifier, golds) == {
        "a, b and c are equal": "the gold is no final answer",
        "proof": "the gold is a placeholder",
    }


def test_the_verifier_is_asked_about_a_sample_only():
    class Verifier:
        def verify_batch(self, completions, solutions):
            self.seen = list(solutions)
            return MathVerifier(num_workers=1).verify_batch(completions, solutions)

    verifier = Verifier()
    assert find_faults(verifier, ["proof", *map(str, range(1500))]) == {"proof": "the gold is a placeholder"}
    assert verifier.seen == [str(n) for n in range(1000)]
