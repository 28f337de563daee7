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


@pytest.mark.parametrize(
    ("prompt", "gold", "answers"),
    [
        ("He sold 48 of 8 and 9 clips.", "72", [
            "8(9)", "48(1.5)", "(48)(1.5)", "(48)1.5", "|8||9|", r"48^1 \cdot 1.5", r"48\pi^0+24",
            r"\frac{48 \cdot 1.5x}{x}",
        ]),
        (r"What is $\sin 30^\circ$?", r"\frac{1}{2}", [r"\sin 30^\circ", r"\sin(30^\circ)", r"\cos 60^\circ"]),
        (r"Evaluate $\log_8 2$.", r"\frac{1}{3}", [r"\log_8 2", r"\log_{8}(2)"]),
        (r"Compute $\arcsin 1$.", r"\frac{\pi}{2}", [r"\arcsin 1", r"\arcsin(1)"]),
        (r"Compute $\sec 45^\circ$.", r"\sqrt{2}", [r"\sec 45^\circ"]),
        (r"Simplify $i^{22}+i^{222}$.", "-2", [r"i^{22}+i^{222}", r"i^{222}+i^{22}"]),
        (r"Simplify $(5-2i)(5+2i)$.", "29", ["(5-2i)(5+2i)", "(5+2i)(5-2i)"]),
        (r"Compute $\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} \begin{pmatrix} 5 \\ 6 \end{pmatrix}$.",
         r"\begin{pmatrix}17\\39\end{pmatrix}",
         [r"\begin{pmatrix}1&2\\3&4\end{pmatrix}\begin{pmatrix}5\\6\end{pmatrix}",
          r"\begin{pmatrix}17\\30+9\end{pmatrix}"]),
        ("Expand $(x+1)^2$.", "x^2+2x+1", ["(x+1)^2", "y = (x+1)^2", r"(x+1)^2 \cdot 1", "(x+1)^2+0",
          r"\left( x + 1 \right)^{2}"]),
        ("Factor $x^2-4$.", "(x-2)(x+2)", ["x^2-4", "(x^2-4)"]),
        (r"Simplify $\sqrt{12}$.", r"2\sqrt{3}", [r"\sqrt{12}"]),
        (r"Simplify $\frac{12}{16}$.", r"\frac{3}{4}", ["12/16"]),
        (r"Which fraction is $0.\overline{5}$?", r"\frac{5}{9}", [r"0.\overline{5}"]),
        ("Write $2y=4x+2$ in slope-intercept form.", "y=2x+1", ["2y=4x+2"]),
        ("Which are the roots?", "7,8", ["3+4, 8", "x = 3+4, x = 8"]),
        ("Which is the point?", "(7,8)", ["(3+4, 8)"]),
        ("Which is the point?", r"(7,\sqrt{2})", [r"(3+4,\sqrt{2})"]),
        ("What is the square root of 36?", "6", [r"\sqrt{36}"]),
        ("What is $2^{10}$?", "1024", ["(2)^{10}", r"2^{9}\cdot 2", "-(-2^{10})",
          r"2^{10}\cdot 1", r"\frac{2^{10}}{1}"]),
        ("What is 15 squared?", "225", ["15^2"]),
        ("What is 22 + 46?", "68", [r"\text{The sum is } 22+46", "The sum is 22 + 46", r"22+46 \text{ m}"]),
        ("Factor 24 into primes.", r"2^3 \cdot 3", ["24", "24.0", "(24)", "x = 24", r"24 \text{ in all}"]),
        ("Write 1,200 in scientific notation.", r"1.2 \times 10^3", ["1,200"]),
        (r"Which fraction is $0.1(6)$?", r"\frac{1}{6}", ["0.1(6)"]),
    ],
)  # fmt: skip
def test_the_problem_in_any_notation_is_no_answer(verifier, prompt, gold, answers):
    verdicts = verifier.verify_batch(
        [rf"\boxed{{{answer}}}" for answer in answers], [gold] * len(answers), [prompt] * len(answers)
    )
    assert [verdict.reason for verdict in verdicts] == ["not_an_answer"] * len(answers)


@pytest.mark.parametrize(
    ("prompt", "gold", "answer"),
    [
        ("Which of a+b and a-b is greater?", "a+b", "b+a"),
        (r"Let f(x) = \frac{x}{2}. Which is it?", r"\frac{x}{2}", "x/2"),
        ("A chance of 3/4 is left as it is.", "0.75", r"\frac{3}{4}"),
        (r"He paid \$5.50.", "5.50", r"\$5.50"),
        (r"Light has $3 \times 10^8$ m/s.", "600000000", r"6 \times 10^8"),
        ("Find x.", "0.693", r"\ln 2"),
        ("What is the circumference?", "3.142", r"\pi"),
        ("Find x^2.", "9", "x^2 = 9"),
        ("Write z in terms of x.", "2x+z=1", "z = 1-2x"),
        ("Factor 40.", r"2^3 \cdot 5", r"5 \cdot 2^3"),
        ("Find f.", "x^2-4", "(x-2)(x+2)"),
        (r"Find the range for x \ge 0.", r"[0,\infty)", r"x \ge 0"),
        ("Which remainder?", "3", r"3 \pmod{7}"),
        ("The clock says 4:30.", "4:30 PM", "4:30"),
        ("What is 22 + 46?", "68", "The sum is 68"),
        ("How far is 3 times 8 m?", r"2^3 \cdot 3", "24"),
        ("How far is 1200 m in 3 steps?", "400", "400 m"),
    ],
)
def test_an_answer_as_simple_as_the_gold_stays_right(verifier, prompt, gold, answer):
    assert verifier.verify(prompt, rf"\boxed{{{answer}}}", gold).correct is True


def test_without_a_prompt_equality_decides(verifier):
    verdicts = verifier.verify_batch([r"\boxed{3+2}", "Answer \\( (9+1) \\)"], ["5", "$10$"])
    assert [verdict.correct for verdict in verdicts] == [True, True]


def test_the_reason_is_said_and_the_other_methods_are_as_they_were(verifier):
    assert verifier.verify(PROMPT, r"\boxed{22 + 46}", "68").reason == "not_an_answer"
    assert verifier.verify(PROMPT, r"\boxed{22 + 47}", "68").reason == "mismatch"
    with MathVerifier(method="boxed") as boxed:
        assert boxed.verify(PROMPT, r"\boxed{22 + 46}", "22 + 46").correct is True


@pytest.mark.parametrize(
    "answer",
    ["sqrt(" * 1600 + "1+1", "1" + " " * 9000 + "+1", "1+1," * 2000, "(" * 9000 + "x+1", r"\frac{1}{" * 1000 + "1+1"],
)
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
