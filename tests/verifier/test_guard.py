import pytest

from trl_hybrid.verifier.guard import is_too_large


@pytest.mark.parametrize(
    "text",
    [
        r"\frac{5^{(5^{(5^{(5^5)})} - 4)} - 5}{16}",
        "(1+i)^{10^8}",
        "2^{10^{11}}",
        "9^{9^{9^{9}}}",
        "(10^{8})!",
        "3!!!",
        r"\binom{10^9}{5}",
        "1" * 2000,
        "(" * 100 + "1" + ")" * 100,
        "x+" * 1000,
        "a" * 5000,
    ],
)
def test_giants_are_refused(text):
    assert is_too_large(text)


@pytest.mark.parametrize(
    "text",
    ["2^{2023}-1", r"\frac{1}{2004!}", r"\binom{2026}{1013}", r"e^{-x^{2}}", r"2^{2^{10}}", "9" * 500, r"x^{n^{2}+1}"],
)
def test_large_answers_of_real_problems_pass(text):
    assert not is_too_large(text)
