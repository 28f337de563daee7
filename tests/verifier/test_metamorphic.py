r"""A right answer in an equal form is right, and one that is moved is wrong: for each kind of value.

Judged in this process, without deadlines: what is drawn is small. The last tests share one batch of workers.
"""

from fractions import Fraction

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from trl_hybrid.verifier import extract_answer, extract_gold
from trl_hybrid.verifier.equivalence import compare_without_algebra
from trl_hybrid.verifier.symbolic import judge
from trl_hybrid.verifier.verdict import is_right
from trl_hybrid.verifier.words import NUMBER_WORDS, number_in_words


FEW = settings(deadline=None, max_examples=20)
WHOLE = st.integers(2, 99_999)
SMALL = st.integers(2, 60)
UNITS = {"cm": r"\text{ cm}", "meters": r"\text{ m}", "kg": r"\text{ kilograms}", "hours": r"\text{ hours}"}
LETTERS = st.sampled_from("ABCDEFGHIJ")


def verdict(gold, answer):
    """What the rules say of an answer in a box, with algebra only where nothing else decides."""
    pair = extract_gold(gold), extract_answer(rf"So \boxed{{{answer}}}").text
    return is_right(compare_without_algebra(*pair) or judge(*pair)["reason"])


def right(gold, *answers):
    refused = {answer: found for answer in answers if (found := verdict(gold, answer)) is not True}
    assert not refused, (gold, refused)


def wrong(gold, *answers):
    accepted = {answer: found for answer in answers if (found := verdict(gold, answer)) is not False}
    assert not accepted, (gold, accepted)


@FEW
@given(st.integers(1000, 10**9))
def test_number(n):
    right(
        str(n),
        f"{n:,}",
        f"{n}.0",
        f"{n}.",
        f"+{n}",
        rf"{n:,}".replace(",", r"{,}"),
        rf"\text{{{n}}}",
        f"x = {n}",
        f"${n}$",
    )
    wrong(str(n), str(n + 1), str(-n), f"{n}0", f"{n}.5", f"0.{n}", f"{n} or {n + 1}", f"{n} = {n + 1}", f"{n}, {n}")


@FEW
@given(st.integers(1, 999), st.integers(1, 9))
def test_decimal(whole, tenth):
    gold = f"{whole}.{tenth}"
    right(gold, f"{gold}0", f"{whole}{tenth}/10", rf"\frac{{{whole}{tenth}}}{{10}}", rf"{whole}\frac{{{tenth}}}{{10}}")
    wrong(gold, f"-{gold}", f"{whole}.0{tenth}", f"{whole + 1}.{tenth}", f"{whole}{tenth}", f"{whole}")


@FEW
@given(st.integers(2, 98))
def test_percent(n):
    assume(n % 10)
    right(rf"{n}\%", f"{n}%", f"{n} percent", rf"{n}\text{{ percent}}", f"{n}", f"{n / 100:.2f}")
    right(str(n), rf"{n}\%")
    right(f"{n / 100:.2f}", rf"{n}\%")
    wrong(rf"{n}\%", rf"{n + 1}\%", f"{n + 1}", rf"-{n}\%", rf"{n}0\%", rf"{n / 100:.2f}\%", f"{n / 1000:.3f}")
    wrong(str(n), f"{n / 100:.2f}")
    wrong(f"{n / 100:.2f}", str(n))


@FEW
@given(st.integers(1, 9999), st.integers(1, 99))
def test_money(dollars, cents):
    gold = rf"\${dollars}.{cents:02}"
    right(
        gold,
        f"{dollars}.{cents:02}",
        f"{dollars:,}.{cents:02} dollars",
        rf"\${dollars}.{cents:02}",
        rf"\text{{\${dollars}.{cents:02}}}",
    )
    wrong(
        gold, rf"\${dollars}", rf"\${dollars + 1}.{cents:02}", rf"-\${dollars}.{cents:02}", rf"\${dollars}{cents:02}"
    )


@FEW
@given(st.integers(1, 11), st.integers(0, 59))
def test_time_of_day(hour, minute):
    gold = f"{hour}:{minute:02} PM"
    right(
        gold,
        f"{hour}:{minute:02} p.m.",
        f"{hour}:{minute:02}PM",
        rf"{hour}:{minute:02}\text{{ pm}}",
        f"{hour + 12}:{minute:02}",
        f"{hour}:{minute:02}",
        f"{hour}:{minute:02}:00 PM",
    )
    wrong(
        gold,
        f"{hour}:{minute:02} AM",
        f"{hour + 1}:{minute:02} PM",
        f"{hour}:{(minute + 1) % 60:02} PM",
        f"{(hour + 13) % 24}:{minute:02}",
    )


@FEW
@given(SMALL, SMALL, st.integers(2, 9))
def test_ratio(a, b, factor):
    assume(a != b and Fraction(a, b).denominator > 1 and Fraction(b, a).denominator > 1)
    right(f"{a}:{b}", f"{a} : {b}", rf"{a}\colon {b}", rf"\frac{{{a}}}{{{b}}}", f"{factor * a}:{factor * b}")
    wrong(f"{a}:{b}", f"{b}:{a}", f"{a + 1}:{b}", f"{a}:{b + 1}", str(a), str(b))
    wrong(f"{a}:{b}:1", f"{a}:1:{b}", f"{a}:{b}")
    wrong(str(a), f"{a}:{b}")


@FEW
@given(st.integers(4, 5000), st.integers(2, 9))
def test_base(n, base):
    def digits(n, base):
        return (digits(n // base, base) if n >= base else "") + str(n % base)

    gold, moved = f"{digits(n, base)}_{{{base}}}", f"{digits(n + 1, base)}_{{{base}}}"
    right(gold, gold.replace("{", "").replace("}", ""), rf"{digits(n, base)}_{{\text{{{base}}}}}")
    wrong(gold, moved, f"{digits(n, base)}_{{{base + 1}}}", f"-{gold}")


@FEW
@given(st.lists(st.integers(-99, 99), min_size=2, max_size=5, unique=True), st.randoms(use_true_random=False))
def test_list(values, random):
    gold = ", ".join(map(str, values))
    shuffled = random.sample(values, len(values))
    right(
        gold,
        ",".join(map(str, shuffled)),
        rf"\{{{gold}\}}",
        " and ".join(map(str, shuffled)),
        ", ".join(f"{value}.0" for value in shuffled),
    )
    wrong(
        gold,
        *(
            ", ".join(map(str, changed))
            for changed in (values[:-1], [*values, 100], [*values[:-1], 100], [*values, values[0]])
        ),
    )
    wrong(f"{values[0]},{values[0]},{values[1]}", f"{values[0]},{values[1]},{values[1]}")


@FEW
@given(st.lists(st.integers(-99, 99), min_size=2, max_size=4, unique=True))
def test_point(values):
    gold = f"({', '.join(map(str, values))})"
    right(
        gold, gold.replace(" ", ""), rf"\left({gold[1:-1]}\right)", f"({', '.join(f'{value}.0' for value in values)})"
    )
    moved = [[*values[:-1], 100], values[::-1], [-100, *values[1:]], values[:-1], [*values, 0]]
    wrong(gold, *(f"({', '.join(map(str, changed))})" for changed in moved))


@FEW
@given(st.integers(-99, 98), st.integers(1, 50))
def test_interval(low, width):
    high = low + width
    right(
        f"[{low},{high})",
        rf"\left[{low}, {high}\right)",
        rf"{low} \le x < {high}",
        rf"x \in [{low},{high})",
        rf"{high} > x \ge {low}",
    )
    wrong(
        f"[{low},{high})",
        f"({low},{high})",
        f"[{low},{high}]",
        f"[{low},{high + 1})",
        f"[{low - 1},{high})",
        rf"{low} < x < {high}",
    )
    right(
        rf"(-\infty,{low})\cup({high},\infty)",
        rf"({high},\infty)\cup(-\infty,{low})",
        rf"x < {low} \text{{ or }} x > {high}",
    )
    wrong(
        rf"(-\infty,{low})\cup({high},\infty)",
        rf"(-\infty,{low}]\cup({high},\infty)",
        rf"(-\infty,{low - 1})\cup({high},\infty)",
    )


@FEW
@given(LETTERS, LETTERS, SMALL)
def test_choice(letter, other, n):
    assume(letter != other)
    right(
        rf"\text{{({letter})}}",
        letter,
        f"({letter})",
        rf"\textbf{{({letter})}}",
        rf"\text{{{letter}}}",
        f"{letter}.",
        f"({letter}) {n}",
    )
    wrong(letter, other, f"({other})", rf"\text{{({other})}} {n}", f"{letter} or {other}", f"{letter},{other}")


@FEW
@given(
    st.sampled_from(["even", "odd", "yes", "no", "Tuesday", "parabola", "convex", "Alice"]),
    st.sampled_from(["March", "circle", "never"]),
)
def test_text(word, other):
    right(rf"\text{{{word}}}", word, rf"\textbf{{{word}}}", rf"\mathrm{{{word}}}", word.upper(), f"{word}.")
    wrong(rf"\text{{{word}}}", other, rf"\text{{not {word}}}", f"{word} or {other}")


@FEW
@given(st.integers(1, 60), st.integers(2, 60), st.integers(2, 9))
def test_fraction(numerator, denominator, factor):
    assume(Fraction(numerator, denominator).denominator > 1 and numerator != denominator)
    gold = rf"\frac{{{numerator}}}{{{denominator}}}"
    right(
        gold,
        f"{numerator}/{denominator}",
        rf"\dfrac{{{numerator * factor}}}{{{denominator * factor}}}",
        f"{numerator / denominator:.6f}",
    )
    wrong(
        gold,
        rf"-{gold}",
        rf"\frac{{{denominator}}}{{{numerator}}}",
        rf"\frac{{{numerator + 1}}}{{{denominator}}}",
        rf"\frac{{{numerator}}}{{{denominator + 1}}}",
        str(numerator),
        f"{numerator / denominator + 0.01:.6f}",
    )


@FEW
@given(st.integers(1, 9), st.integers(1, 99), st.integers(1, 12))
@example(1, 25, 4)
@example(3, 84, 5)
@example(1, 25, 1)
def test_scientific(digit, decimals, power):
    gold = rf"{digit}.{decimals:02} \times 10^{{{power}}}"
    value = Fraction(f"{digit}.{decimals:02}") * 10**power
    right(gold, f"{digit}.{decimals:02}e{power}", rf"{digit}.{decimals:02}\cdot 10^{{{power}}}")
    if value.denominator == 1:
        right(gold, str(value), f"{int(value):,}")
    wrong(
        gold,
        rf"{digit}.{decimals:02} \times 10^{{{power + 1}}}",
        rf"{digit}.{decimals:02} \times 10^{{-{power}}}",
        rf"-{gold}",
        f"{digit}.{decimals:02}",
        "3",
        str(int(value) + 7 * 10**power),
    )


@FEW
@given(SMALL, st.sampled_from(sorted(UNITS)))
def test_unit(n, unit):
    right(str(n), f"{n} {unit}", rf"{n}{UNITS[unit]}")
    right(rf"{n}{UNITS[unit]}", str(n), f"{n} {unit}")
    others = [UNITS[other] for other in UNITS if other != unit]
    wrong(rf"{n}{UNITS[unit]}", str(n + 1), f"{n + 1} {unit}", f"-{n} {unit}", *(f"{n}{other}" for other in others))
    right(rf"{n}\text{{ cm}}^2", rf"{n} cm^2", rf"{n}\text{{ cm}}^{{2}}", str(n))
    wrong(rf"{n}\text{{ cm}}^2", rf"{n}\text{{ cm}}^3", rf"{n}\text{{ m}}^2", rf"{n + 1}\text{{ cm}}^2")


@FEW
@given(st.sampled_from(["seven", "twelve", "twenty-five", "forty two", "one hundred"]))
def test_number_in_words(words):
    value = int(number_in_words(words))
    assert NUMBER_WORDS.search(words)
    right(str(value), words, rf"\text{{{words}}}")
    wrong(str(value + 1), words)


@FEW
@given(
    WHOLE,
    st.sampled_from(
        [
            "The answer is {}.",
            "#### {}",
            "<answer>{}</answer>",
            "**Answer:** {}",
            '{{"answer": {}}}',
            "Therefore the final answer is ${}$",
            "It is $\\boxed{{{}}}$.",
        ]
    ),
)
def test_every_place_of_an_answer(n, place):
    text = f"First 3 + 4 = 7, so 7. {place.format(n)}"
    assert is_right(compare_without_algebra(str(n), extract_answer(text).text)) is True
    assert is_right(compare_without_algebra(str(n + 1), extract_answer(text).text)) is False
    assert extract_answer(text, finished=False).form == extract_answer(text).form != "text"


def algebraic():
    r"""(gold, answer, expected) for what only algebra decides, over a few values: roots, polynomials, equations."""
    for a, b in ((2, 3), (5, 7), (11, 4)):
        yield rf"{a}\sqrt{{{b}}}", rf"\sqrt{{{a * a * b}}}", True
        yield rf"{a}\sqrt{{{b}}}", rf"\sqrt{{{a * a * b + 1}}}", False
        yield rf"{a}\sqrt{{{b}}}", rf"-{a}\sqrt{{{b}}}", False
        yield rf"{a}\sqrt{{{b}}}", rf"{b}\sqrt{{{a}}}", False
        yield rf"{a}\sqrt{{{b}}}", f"{a * b**0.5:.4f}", True
        yield rf"\frac{{{a}}}{{\sqrt{{{b}}}}}", rf"\frac{{{a}\sqrt{{{b}}}}}{{{b}}}", True
        yield rf"\frac{{{a}\pi}}{{{b}}}", rf"{a}\pi/{b}", True
        yield rf"\frac{{{a}\pi}}{{{b}}}", rf"\frac{{{a + 1}\pi}}{{{b}}}", False
        yield f"x^2+{a}x+{b}", f"{b}+x(x+{a})", True
        yield f"x^2+{a}x+{b}", f"x^2-{a}x+{b}", False
        yield f"x^2+{a}x+{b}", f"x^2+{a}x+{b + 1}", False
        yield f"x^2+{a}x+{b}", f"y^2+{a}y+{b}", False
        yield f"y={a}x+{b}", f"{b}+{a}x=y", True
        yield f"y={a}x+{b}", f"{2 * a}x+{2 * b}=2y", True
        yield f"y={a}x+{b}", f"y={a}x-{b}", False
        yield f"y={a}x+{b}", f"y={b}x+{a}", False
        yield f"y={a}x+{b}", "1=1", False
        yield f"f(x)={a}x^2+{b}", f"{b}+{a}x^2", True
        yield f"f(x)={a}x^2+{b}", f"f(z)={a}z^2+{b}", True
        yield f"f(x)={a}x^2+{b}", f"f(x)={a}x^3+{b}", False
        yield rf"{a}\sin(x)+{b}", f"{b}+{a}*sin(x)", True
        yield rf"{a}\sin(x)+{b}", rf"{a}\cos(x)+{b}", False
        yield rf"{a}e^{{{b}x}}", f"{a}*exp({b}*x)", True
        yield rf"{a}e^{{{b}x}}", f"{a}*exp(-{b}*x)", False
        for greek in ("alpha", "gamma", "lambda"):
            yield rf"\{greek}^2+{a}\{greek}+{b}", rf"{b}+\{greek}(\{greek}+{a})", True
            yield rf"\{greek}^2+{a}\{greek}+{b}", rf"\{greek}^2+{a}\{greek}-{b}", False
            yield rf"\{greek}^2+{a}\{greek}", rf"\theta^2+{a}\theta", False
        yield (
            rf"\begin{{pmatrix}} {a} & {b} \\ 1 & 0 \end{{pmatrix}}",
            rf"\begin{{bmatrix}} {a} & {b} \\ 1 & 0 \end{{bmatrix}}",
            True,
        )
        yield (
            rf"\begin{{pmatrix}} {a} & {b} \\ 1 & 0 \end{{pmatrix}}",
            rf"\begin{{pmatrix}} {b} & {a} \\ 1 & 0 \end{{pmatrix}}",
            False,
        )
        yield rf"{a}+{b}i", rf"{b}i+{a}", True
        yield rf"{a}+{b}i", rf"{a}-{b}i", False
        yield rf"{a} \pm \sqrt{{{b}}}", rf"{a}-\sqrt{{{b}}}, {a}+\sqrt{{{b}}}", True
        yield rf"{a} \pm \sqrt{{{b}}}", rf"{a}+\sqrt{{{b}}}", False
        yield rf"{30 * a}^\circ", rf"\frac{{{a}\pi}}{{6}}", True
        yield rf"{30 * a}^\circ", rf"\frac{{{a}\pi}}{{3}}", False


@pytest.fixture(scope="module")
def algebra_verdicts(verifier):
    pairs = list(algebraic())
    found = verifier.verify_batch([rf"\boxed{{{answer}}}" for _, answer, _ in pairs], [gold for gold, *_ in pairs])
    return list(zip(pairs, found, strict=True))


@pytest.mark.parametrize("expected", [True, False], ids=["equal", "moved"])
def test_algebra(algebra_verdicts, expected):
    assert [
        (*pair, found.reason) for pair, found in algebra_verdicts if pair[2] is expected is not found.correct
    ] == []
