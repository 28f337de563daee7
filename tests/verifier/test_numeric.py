from fractions import Fraction

import pytest

from trl_hybrid.verifier.latex import normalize
from trl_hybrid.verifier.numeric import parse_number, same_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        ("-3", -3),
        ("1,000", 1000),
        ("1,000,000.50", Fraction(2_000_001, 2)),
        (r"1\,234", 1234),
        ("32,\\! 349", 32349),
        (".5", Fraction(1, 2)),
        ("6.", 6),
        (r"\$18.90", Fraction(189, 10)),
        (r"\frac12", Fraction(1, 2)),
        (r"-\dfrac{10}{9}", Fraction(-10, 9)),
        ("10/9", Fraction(10, 9)),
        (r"1\frac{1}{2}", Fraction(3, 2)),
        ("-1 1/2", Fraction(-3, 2)),
        (r"1.5 \times 10^3", 1500),
        ("6.02e23", 602 * 10**21),
        ("10^{-2}", Fraction(1, 100)),
        (r"16.\overline{6}", Fraction(50, 3)),
        (r"33.5\%", Fraction(67, 200)),
        (r"\frac{1}{2}\%", Fraction(1, 200)),
        ("28 percent", Fraction(28, 100)),
        ("12_3", 5),
    ],
)
def test_numbers_have_their_exact_value(text, value):
    assert parse_number(normalize(text)).value == value


@pytest.mark.parametrize(
    "text",
    ["", "x", "1,23", "32, 349", "1 2", "12/0", "(1,2)", "2+3", "42!", "12_2", "1e9999", "4 or 5", "%" * 3000, "5%%"],
)
def test_everything_else_is_no_number(text):
    assert parse_number(normalize(text)) is None


@pytest.mark.parametrize(
    ("gold", "answer", "same"),
    [
        ("2/3", "0.667", True),  # 0.6666... differs from 0.667 by less than 0.001
        ("2/3", "0.666", True),  # cut off instead of rounded
        ("2/3", "0.665", False),
        ("1/3", "0.3", False),  # fewer than three digits show nothing
        ("0.6666667", "2/3", True),
        ("2.23", "2.232", False),  # two decimals compare exactly
        ("17", "17.001", False),  # an integer shows itself in full
        ("17", "17.000", True),
        ("100000000000", "99999999999", False),
        ("12534", r"1.25 \times 10^4", False),  # a whole number is not rounded, to whatever place
        ("12599", r"1.25 \times 10^4", False),
        ("299792458", "3.00e8", False),
        ("1.00e3", "1009", False),
        ("12500", r"1.25 \times 10^4", True),
        ("0", "0.0000001", False),
        (r"10\%", "10", True),
        (r"10\%", "0.1", True),
        ("0.1", r"10\%", True),
        ("9", r"9\%", True),
        ("9", "0.09", False),
        ("3.14159", "22/7", False),
        ("22/7", "3.15", False),  # neither rounded nor cut off
        ("22/7", "3.14", True),
        ("-1/3", "0.333", False),
        ("-1/3", "-0.333", True),
        ("8 million", "8000000", True),
        ("8 million", "8", False),
        ("12_3", "5", False),  # the same value, but not in the base that was asked for
        ("12_3", "12_{3}", True),
    ],
)
def test_decimals_percentages_and_integers_compare_by_their_rules(gold, answer, same):
    assert same_number(parse_number(gold), parse_number(answer)) is same
