r"""No text that a policy may write makes extraction or comparison raise: nothing is contained here.

The alphabet is what occurs in some 14,000 answers of real models: their commands, their characters, and the phrases
around an answer.
"""

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_hybrid.verifier import Reason, extract_answer, extract_gold
from trl_hybrid.verifier.equivalence import compare, compare_strings, compare_without_algebra
from trl_hybrid.verifier.gsm8k import flexible_answer, strict_answer


COMMANDS = [
    r"\frac",
    r"\boxed",
    r"\\",
    r"\circ",
    r"\cdot",
    r"\sqrt",
    r"\(",
    r"\)",
    r"\times",
    r"\angle",
    r"\_",
    r"\pi",
    r"\overline",
    r"\sin",
    r"\triangle",
    r"\left",
    r"\right",
    r"\cos",
    r"\text",
    r"\mathrm",
    r"\begin",
    r"\end",
    r"\[",
    r"\mathbf",
    r"\]",
    r"\|",
    r"\div",
    r"\tan",
    r"\qquad",
    r"\le",
    r"\$",
    r"\sum",
    r"\arcsin",
    r"\%",
    r"\alpha",
    r"\theta",
    r"\measuredangle",
    r"\infty",
    r"\quad",
    r"\gcd",
    r"\ldots",
    r"\lambda",
    r"\square",
    r"\mathcal",
    r"\ge",
    r"\textbackslash",
    r"\diamond",
    r"\pm",
    r"\dots",
    r"\binom",
    r"\dfrac",
    r"\beta",
    r"\cdots",
    r"\dotsm",
    r"\geq",
    r"\rm",
    r"\dot",
    r"\Rightarrow",
    r"\ell",
    r"\textasciitilde",
    r"\neq",
    r"\parallel",
    r"\sim",
    r"\approx",
    r"\equiv",
    r"\perp",
    r"\Psi",
    r"\leq",
    r"\&",
    r"\pmod",
    r"\cancel",
    r"\{",
    r"\}",
    r"\log",
    r"\int",
    r"\widetilde",
    r"\bold",
    r"\ne",
    r"\hline",
    r"\to",
    r"\gamma",
    r"\eta",
    r"\cup",
    r"\nu",
    r"\,",
    r"\displaystyle",
    r"\mathop",
    r"\overrightarrow",
    r"\implies",
    r"\Omega",
    r"\in",
    r"\overset",
    r"\widehat",
    r"\therefore",
    r"\star",
    r"\prime",
    r"\bar",
    r"\cap",
    r"\tag",
    r"\nabla",
    r"\mid",
    r"\!",
    r"\textbf",
    r"\sigma",
    r"\operatorname",
    r"\prod",
    r"\iff",
    r"\lfloor",
    r"\rfloor",
    r"\min",
    r"\Delta",
    r"\det",
    r"\omega",
    r"\exp",
    r"\choose",
    r"\fracmn",
    r"\lvert",
    r"\rvert",
    r"\vdots",
    r"\n",
    r"\underline",
    r"\sqrtn",
    r"\limits",
    r"\degree",
    r"\arctan",
    r"\mp",
    r"\nThe",
    r"\over",
    r"\piL",
    r"\fbox",
    r"\tfrac",
    r"\log_2",
    r"\ln",
    r"\lim",
    r"\gamma",
    r"\%$",
    r"\subset",
    r"\emptyset",
    r"\mathbb",
]
CHARACTERS = [
    *" \n\t.,_=`{}+()#-\"*:/^'[]%?&;|><~!$@",
    *"’α£€×÷√∠°γπμσ→Ω的。是θ，≤±–⊥²¥·、≈≥—“”½：個\u200b\xa0\u0304\ufe0f⬛",
]
VALUES = [
    "0",
    "1",
    "2",
    "3",
    "7",
    "9",
    "10",
    "12",
    "25",
    "42",
    "100",
    "1,234",
    "0.5",
    "3.84",
    ".25",
    "1e4",
    "12:30",
    "3/4",
    "1.25e4",
    "10^{400}",
    "00",
    "a",
    "b",
    "c",
    "d",
    "e",
    "f",
    "i",
    "k",
    "n",
    "x",
    "y",
    "z",
    "A",
    "B",
    "C",
    "AM",
    "p.m.",
    "2^{10}",
]
WORDS = [
    "The answer is ",
    "the final answer is: ",
    "answer",
    "Ans: ",
    "#### ",
    "<answer>",
    "</answer>",
    "[ANSWER]",
    "<think>",
    "</think>",
    "<|im_end|>",
    '{"answer": ',
    "}",
    "故选",
    "Option B is correct",
    "boxed{",
    "\\boxed{",
    "\\boxed{\\frac{",
    "\\text{ and }",
    " or ",
    " and ",
    " not ",
    " is ",
    " isn't ",
    " because ",
    " cannot be ",
    " percent",
    " million",
    "minus ",
    " and a half",
    "twenty-",
    "seven ",
    "one hundred ",
    " dollars",
    " cm^2",
    " degrees",
    " to ",
    " base ",
    " mod ",
    "sqrt(",
    "sin(",
    "Integral(",
    "exp(",
    "\\begin{pmatrix}",
    "\\end{pmatrix}",
    "\\begin{cases}",
    "\\end{cases}",
    "\\left(",
    "\\right)",
    "\\times 10^",
    "\\overline{",
    "_{2}",
    "_8",
    "^{2}",
    "^",
    "Let me check: ",
    "Problem: ",
    "Therefore, ",
    "Sorry, I ",
]
DIGIT = [*"0123456789"]
TOKEN = st.one_of(*map(st.sampled_from, (VALUES, DIGIT, COMMANDS, CHARACTERS, WORDS)))
PIECE = st.one_of(
    TOKEN,
    st.tuples(st.sampled_from(COMMANDS), TOKEN).map(lambda pair: f"{pair[0]}{{{pair[1]}}}"),
    st.tuples(TOKEN, TOKEN).map(lambda pair: rf"\frac{{{pair[0]}}}{{{pair[1]}}}"),
    st.lists(TOKEN, min_size=1, max_size=4).map(lambda items: "(" + ",".join(items) + ")"),
    st.lists(TOKEN, min_size=1, max_size=4).map(lambda items: rf"$\boxed{{{''.join(items)}}}$"),
)
TEXT = st.lists(PIECE, max_size=14).map("".join)
ANSWER = st.lists(PIECE, min_size=1, max_size=5).map("".join)


def read(text, prompt):
    """Every reading of a text as an answer or as a gold."""
    for finished in (True, False):
        found = extract_answer(text, prompt, finished)
        assert found is None or found.text.strip()
    return [
        extract_gold(text),
        *(own.text for own in (extract_answer(text), strict_answer(text), flexible_answer(text)) if own),
    ]


def judge(gold, answer):
    """Every rule on a pair: those that need no algebra, and all of them whatever algebra says."""
    compare_without_algebra(gold, answer)
    compare_strings(gold, answer)
    for says in (True, False, None):
        judgement = compare(gold, answer, lambda gold, answer, says=says: says)
        assert judgement in get_args(Reason)


@settings(deadline=None, max_examples=250)
@given(TEXT, ANSWER)
def test_nothing_raises_on_what_models_write(text, other):
    for answer in read(text, other):
        judge(other, answer)
        judge(answer, other)


@settings(deadline=None, max_examples=250)
@given(ANSWER, ANSWER)
def test_nothing_raises_on_two_short_answers(gold, answer):
    judge(gold, answer)
    judge(answer, gold)


@pytest.mark.slow
@settings(deadline=None, max_examples=2500)
@given(TEXT, ANSWER, ANSWER)
def test_nothing_raises_in_a_long_search(text, gold, answer):
    judge(gold, answer)
    for extracted in read(text, gold):
        judge(gold, extracted)
        judge(extracted, answer)
