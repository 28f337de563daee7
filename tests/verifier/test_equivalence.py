"""Pairs of answers by rule. Algebra runs in this process: every pair here is harmless."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from latex2sympy2_extended import latex2sympy

from trl_hybrid.verifier import equivalence, symbolic, units
from trl_hybrid.verifier.equivalence import NeedsAlgebraError, compare, compare_strings, compare_without_algebra
from trl_hybrid.verifier.lead_in import without_lead_in
from trl_hybrid.verifier.symbolic import equal, judge
from trl_hybrid.verifier.verdict import is_right


def no_algebra(gold, answer):
    raise NeedsAlgebraError


@pytest.mark.parametrize(
    ("gold", "answer", "reason"),
    [
        (r"\frac{1}{2}", r"\dfrac12", "exact"),
        (r"\text{(C)}", "C", "exact"),
        (r"\textbf{(D)}\ 42", "D", "exact"),
        (r"\text{Monday}", "monday", "exact"),
        ("0x3eb2", "0x3EB2", "exact"),
        ("-0x1f", "-31", "exact"),
        (r"\mathbb{R}", r"(-\infty,+\infty)", "exact"),
        ("1000", "1,000.0", "numeric"),
        (r"10 \text{ cm}^2", "10", "numeric"),
        ("20:34", r"08:34 \text{ P.M.}", "numeric"),
        ("x = 2", "2", "exact"),
        ("2", "x = 2", "exact"),
        ("f(x) = x^2", "x^2", "exact"),
        ("(p,q) = (3,2)", "(3, 2)", "symbolic"),
        ("4", "2 + 2 = 4", "exact"),
        (r"\frac{1}{3}", r"x = \frac{1}{3} \approx 0.33", "exact"),
        ("1, 2", r"x = 2 \text{ or } x = 1", "symbolic"),
        (r"1 \pm \sqrt{2}", r"1-\sqrt{2}, 1+\sqrt{2}", "symbolic"),
        ("a = 4, -8", "-8, 4", "symbolic"),
        (r"\{1,2\}", "2,1", "symbolic"),
        ("(2,3),(3,2)", "(3,2),(2,3)", "symbolic"),
        ("(1, 0.5)", r"(1, \frac{1}{2})", "symbolic"),
        (r"x \le 5", r"5 \ge x", "symbolic"),
        (r"[-5,1]\cup[3,9]", r"3 \le x \le 9 \text{ or } -5 \le x \le 1", "symbolic"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1,2)", "symbolic"),
        (r"\begin{pmatrix}1&0\\0&1\end{pmatrix}", r"\begin{bmatrix} 1 & 0 \\ 0 & 1.0 \end{bmatrix}", "symbolic"),
    ],
)
def test_strings_numbers_and_parts_decide_without_algebra(gold, answer, reason):
    assert compare(gold, answer, no_algebra) == reason


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"2\sqrt{3}+1", r"1+2\sqrt 3"),
        (r"(x+1)^2", "x^2+2x+1"),
        (r"\sin^2 x + \cos^2 x", "1"),
        (r"40\pi", "125.663"),
        (r"x + \sqrt{2}y", "x + 1.414y"),
        (r"e^{i\pi}", "-1"),
        (r"\sin(90^\circ - x)", r"\cos x"),
        ("2x - y + 1 = 0", "y = 2x + 1"),
        ("|x| < 3", "-3 < x < 3"),
        (r"\log_2 8", "3"),
        ("x = 3, y = \\sqrt{8}", r"(3, 2\sqrt{2})"),
    ],
)
def test_algebra_decides_the_rest(gold, answer):
    assert compare(gold, answer, equal) == "symbolic"


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("x", "y"),
        ("5", "5x"),
        ("0x3eb2", "0x3eb3"),
        ("5", "5m"),
        ("5", "5!"),
        ("A", "B"),
        ("R + r", "2r"),
        ("2", "2, 3"),
        (r"\pm 1", "1"),
        ("(1,2)", "(2,1)"),
        (r"\{1,2\}", "(2,1)"),
        ("[-3,2]", "(-3,2)"),
        ("[x, x+1]", "[x+1, x]"),
        ("x > 3", r"x \ge 3"),
        ("x = 2", "y = 2"),
        ("x > 2, y < 3", "y > 2, x < 3"),
        (r"3 \text{ cm}", r"3 \text{ m}"),
        ("2x + z = 1", "1"),
        ("7 = 11a + c", "11a + c"),
        (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"),
        ("0", "e^{-100}"),
        ("10^{-20}", "0"),
        (r"\sqrt{2}", "1.4"),
        ("6", r"\frac{6}{0}"),
        (r"\text{(B)}", r"\text{(C)}"),
        ("C", "(A)(C)"),
        (r"\infty", r"-\infty"),
        (r"(1,\infty)", "(1,5)"),
        ("1:2:3", "1:3:2"),
        ("x = 1", "x^2 = 1"),
        (r"3 \pmod{7}", r"3 \pmod{8}"),
        (r"\sin 30^\circ", r"\sin 30"),
    ],
)
def test_other_values_are_a_mismatch(gold, answer):
    assert compare(gold, answer, equal) == "mismatch"


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("42", "x = 41 = 42"),
        ("42", "41 = 42"),
        ("42", r"41 \le x \le 42"),
        ("42", r"42 \ne 43"),
        ("4950", r"\sum_{k=1}^{99} k"),
        (r"\frac{1}{3}", r"\int_0^1 x^2 dx"),
        ("120", r"\det\begin{pmatrix} 4 & 0 \\ 0 & 30 \end{pmatrix}"),
        ("7", "3 4"),
        ("7", "{3}{4}"),
        ("72", "48 1.5"),
        ("72", "8 9.0"),
        ("72", "1.5{48.0}"),
    ],
)
def test_chains_relations_and_restated_problems_are_not_an_answer(gold, answer):
    assert compare(gold, answer, equal) == "not_an_answer"


@pytest.mark.parametrize(
    "answer", ["42 or 43", r"42 \text{ or } 43", r"\text{42 or 43}", "42, 43", r"41 \approx 42", "x = 42, x = 43"]
)
def test_a_hedge_is_never_right(answer):
    assert is_right(compare("42", answer, equal)) is False
    assert is_right(compare("43", answer, equal)) is False


@pytest.mark.parametrize(
    "gold", ["", "  ", "None", "nan", "NULL", "not a formula but a sentence", r"\frac{", "2^{10^{11}}"]
)
def test_a_gold_that_says_nothing_is_unjudgeable(gold):
    assert compare(gold, "x + 7", equal) == "unjudgeable"


@pytest.mark.parametrize("gold", [r"\forall x>0, 3^x \ge x^2", r"\quad"])
@pytest.mark.parametrize("compared", [lambda *pair: compare(*pair, equal), compare_strings])
def test_a_gold_of_which_nothing_is_left_does_not_make_right_what_nothing_is_left_of(gold, compared):
    assert compared(gold, r"\forall x, x") == "unjudgeable"


def test_a_giant_answer_is_refused_by_the_guard():
    assert compare("7", "2^{10^{11}}", equal) == "guard"


def test_a_gold_expression_may_keep_the_operator_that_an_answer_may_not_bring():
    gold = r"\sum_{k=1}^{n} k^{k}"
    assert is_right(compare(gold, r"\sum_{k=1}^n k^k", equal))


def test_memory_that_runs_out_is_reported_as_such(monkeypatch):
    def out_of_memory(*_):
        raise MemoryError

    monkeypatch.setattr("trl_hybrid.verifier.symbolic.compare", out_of_memory)
    assert judge("1", "x") == {"reason": "memory"}


@pytest.mark.parametrize(
    ("gold", "same", "other"),
    [
        ("101_2", r"101_{\text{two}}", "101_3"),
        ("234_5", "(234)_5", "23"),
        ("4:45 PM", "16:45", "4:45 AM"),
        (r"6\text{ PM}", r"6:00\text{ PM}", r"6\text{ AM}"),
        ("12:30:00", "12:30", "12:30:15"),
        ("3:1", "3/1", "3"),
        ("1", "1:1", "2:1"),
        ("3 cm^2", r"3\text{ square centimeters}", "3 cm^3"),
        (r"84=2^2\times3\times7", r"84=7\cdot 3\cdot 2^2", r"84=4\times3\times7"),
        (r"\log_2 8=3", "3", r"\log_3 27=3"),
        ("2+2=4", "4", "3+1=4"),
        ("x^2+4=0", "2x^2+8=0", "x^2+9=0"),
        ("x=1\\text{ or }x=6", "x_1=1, x_2=6", "x_1=1, x_2=5"),
        ("(1,2),(3,2)", "a=1,b=2; a=3,b=2", "a=2,b=1; a=2,b=3"),
        ("(1,2),(3,2)", r"a=1,b=2 \text{ or } a=3,b=2", r"a=1,b=2 \text{ or } a=2,b=3"),
        ("(3,-2)", "y=-2, x=3", "y=3, x=-2"),
        ("5", r"5\,\frac{\text{km}}{\text{h}}", r"5\,\frac{\text{km}}{2}"),
        (r"5\text{ m/s}", r"5\,\mathrm{\frac{m}{s}}", r"5\,\mathrm{\frac{km}{s}}"),
        ("5", "USD 5", "USD 50"),
        ("5", r"US\$5", r"US\$5x"),
        ("5", "Rs. 5", "Rs. 55"),
        ("5", r"\text{£}5", r"\text{£}50"),
        ("5", "5¢", "50¢"),
        ("5", r"5 \checkmark", r"5! \checkmark"),
        ("17", "x=17 ✅", "x=71 ✅"),
        ("17", "x = 17 (QED)", "x = 7 (QED)"),
        ("5", r"5\hspace{1cm}", r"15\hspace{1cm}"),
        ("5", r"\text{about 5 hours}", r"\text{about 50 hours}"),
        ("72", r"\text{72nd}", r"\text{71st}"),
        (r"\text{June 20}", r"\text{June 20th}", r"\text{June 21st}"),
        (r"\text{no solution}", r"\text{No solutions}", r"\text{two solutions}"),
        ("3:2", r"3 \text{ to } 2", r"2 \text{ to } 3"),
        ("(3,-2)", r"\begin{pmatrix}3\\-2\end{pmatrix}", r"\begin{pmatrix}-2\\3\end{pmatrix}"),
        ("2.5", r"2.5 \approx 3", r"3 \approx 2.5"),
        ("72", r"72 \approx 72.3", r"72 \approx 48"),
        ("72", r"72\text{ clips}", r"72\text{ at least}"),
        ("(a,b)=(1,2)", "b=2,a=1", "b=1,a=2"),
        ("(2,3)", "(y,x)=(3,2)", "(y,x)=(2,3)"),
        ("(2,3)", r"y=3 \text{ and } x=2", r"y=2 \text{ and } x=3"),
        ("y=3, x=2", "(2,3)", "(3,2)"),
        ("(m,b)=(2,3)", "b=3, m=2", "m=3, b=2"),  # by name
        ("(2,3)", "m=2, b=3", "m=3, b=2"),  # no neighbours in the alphabet: as they stand
        ("(1,2),(3,2)", "b=2,a=1; b=2,a=3", "b=1,a=2; b=3,a=2"),
        (r"y^{\prime}=x", "y'=x", "y''=x"),
        (r"\gamma+3", r"3+\gamma", r"\gamma+4"),
        ("6", "2(3)", "2(4)"),
        ("twenty-five", "25", "26"),
        ("7", r"\text{seven}", r"\text{eight}"),
        ("12,5\\%", "12.5", "125"),
        (r"\ln(ab)", r"\ln a+\ln b", r"\ln a\ln b"),
        (r"\sqrt{x^2y}", r"x\sqrt y", r"y\sqrt x"),
        ("log(x + 1) + C", r"\ln|x+1|+C", r"\ln|x-1|+C"),
        (r"\sqrt{13}", "√13", "√15"),
        (r"\text{multiples of }3", "multiples of 3", "multiples of 4"),
        ("5", "5 m", "5m"),  # a unit behind a space, else a variable
        ("5 m", r"5\text{ meters}", "5 g"),
        ("25", "25 m^2", "25m^2"),
        ("5", "5 lbs", "5 xy"),
        ("60", "60 km/h", "60x/y"),
        ("2a/b", "2a/b", "2c/d"),
        ("5", "5 times", "5 times ten"),
        ("5", "5 apples more", "5 minus two"),
        ("5", "5 feet", "5 feet six inches"),
        ("5", "5 second graders", "5 tenths"),
        ("25", "25 cm squared", "25 squared"),
        ("5", "5 (five)", "5 (six)"),
        ("5", "five (5) apples", "six (5) apples"),
        (r"12\text{ cm}", "twelve cm", "twelve meters"),
        ("1011_2", "1011", "11"),
        ("1011_2", r"1011 \text{ (base two)}", r"1011 \text{ (base three)}"),
        ("0.11_2", "0.11", "0.75"),
        (r"\frac{1}{6}", "0.1(6)", "0.1"),
        (r"\frac{4}{11}", r"0.\dot{3}\dot{6}", r"0.\dot{3}\dot{7}"),
        (r"\frac{1}{3}", r"0.333\ldots", r"0.3\ldots"),
        ("1234567", "1.234.567", "1.234"),
        ("-3", "negative 3", "3"),
        (r"\emptyset", r"\text{There is no solution}", "0"),
        (r"\text{No real solutions}", r"\varnothing", r"\{0\}"),
        (r"\emptyset", r"\{\}", r"\{\emptyset\}"),
        ("(0,1]", "]0,1]", "[0,1]"),
        (r"(-\infty,0)\cup(1,\infty)", r"]-\infty,0[\cup]1,\infty[", r"]-\infty,0]\cup[1,\infty["),
        ("[1,2]", r"\lbrack 1,2 \rbrack", r"\{1,2\}"),
        ("4", "4 at x = 5", "5 at x = 4"),
        ("5", r"\text{There are 5 apples}", r"\text{There are not 5 apples}"),
        ("5", "The number of apples is 5", "It is at least 5"),
        (r"\frac{1}{2}", r"\text{The probability is } \frac{1}{2}", r"\text{The odds are not } \frac{1}{2}"),
        ("x=5", "The value of x is 5", "The value of y is 5"),
        (r"\text{even}", "The function is even", "The function is neither even nor odd"),
    ],
)
def test_an_equal_form_is_right_and_a_moved_value_is_wrong(gold, same, other):
    assert is_right(compare(gold, same, equal)) is True
    assert is_right(compare(gold, other, equal)) is False


def test_an_absolute_value_is_no_identity_of_positive_letters():
    assert is_right(compare("|x|", "x", equal)) is False
    assert is_right(compare(r"\sqrt{x+y}", r"\sqrt x+\sqrt y", equal)) is False


PLAIN = st.one_of(st.integers(-10_000, 10_000).map(str), st.from_regex(r"\A-?\d{1,5}\.\d{1,4}\Z"))


@given(PLAIN, PLAIN)
def test_numbers_in_plain_digits_take_a_short_way_to_the_same_judgement(gold, answer):
    short, long = compare_without_algebra(gold, answer), compare_without_algebra(f"${gold}$", f"${answer}$")
    assert short == long


@pytest.mark.parametrize("gold", [r"33\frac13\%", r"0.1\overline{6}", "1011_2"])
@pytest.mark.parametrize("answer", ["x", r"\text{apple}", r"\frac{x}{2}", r"\begin{pmatrix}7\\9\end{pmatrix}"])
def test_no_answer_makes_a_number_unjudgeable(gold, answer):
    assert compare(gold, answer, equal) == "mismatch"


def test_a_long_answer_in_words_takes_no_longer_than_its_length():
    start = time.process_time()
    for words in ("word " * 2000, "a" * 10_000, "5 apples " * 1000, "five (" * 1500, r"\text{so " * 1200):
        normal = equivalence._read(words)
        without_lead_in(normal)
        units.without_unit(normal)
    assert time.process_time() - start < 2.0


def test_a_groups_gold_is_read_once():
    equivalence._read.cache_clear()
    for answer in ("y+x+1", "y+x+2", "y+x+3"):
        compare_without_algebra("x+y+1", answer)
    assert equivalence._read.cache_info().hits == 2


@pytest.mark.parametrize("text", ["007", "1,234", "0.50", "2^{10}", r"\frac{12}{7}x+30", r"3\frac{1}{2}", "50\\%"])
def test_numbers_are_read_as_latex2sympy_reads_them(text):
    assert symbolic.Converter().parse(text) == latex2sympy(text, normalization_config=None)
