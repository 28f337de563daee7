"""The block that a run prints about its problems."""

import pytest

from trl_hybrid.data.task_report import LeftOut, TaskReport, answer_form, shortened
from trl_hybrid.recipe.defaults import RECIPE_DEFAULTS


REPORT = TaskReport(
    name="openai/gsm8k:train",
    rows=200,
    streamed=False,
    left_out=[LeftOut("the gold is blank", 2, 7, ""), LeftOut("the gold is a placeholder", 1, 3, "proof")],
    lengths=[30, 10, 20, 90],
    context=512,
    completion=40,
    rendered=["Answer in \\boxed{}.\n\nWhat is 1 + 1?"] * 5,
    golds=["2"],
    has_system=True,
)


def test_block_says_what_is_there_and_what_is_left_out():
    assert REPORT.text().splitlines() == [
        "Problems: openai/gsm8k:train",
        "  rows      200, 3 left out (1.5%)",
        "            2: the gold is blank (first in row 7, gold '')",
        "            1: the gold is a placeholder (first in row 3, gold 'proof')",
        "  prompts   20 tokens in the middle, 90 at most; room for 472 (context 512 - 40)",
        "  answers   in \\boxed{}, as the prompts ask",
        "  1         Answer in \\boxed{}. What is 1 + 1?",
        "            gold: 2",
    ]
    assert REPORT.text(examples=False).splitlines() == REPORT.text().splitlines()[:5]


@pytest.mark.parametrize(
    ("prompts", "has_system", "says"),
    [
        (["Put it in \\boxed{}. 1 + 1?"] * 2, True, "in \\boxed{}, as the prompts ask"),
        (["1 + 1?", "Put it in \\boxed{}. 1 + 1?"], False, "in \\boxed{}, as the prompts ask"),
        (['1 + 1? Write the answer after "####".'], False, "WARNING: the prompts ask for ####"),
        (["Answer as <answer>n</answer>. 1 + 1?"], True, "WARNING: the prompts ask for <answer>"),
        (["Answer in \\boxed{}. 1 + 1? End with ####."], True, "WARNING: the prompts ask for \\boxed{} and for ####"),
        (["Answer as <answer>\\boxed{n}</answer>. 1 + 1?"], True, "in \\boxed{}, as the prompts ask"),
        (["Answer as JSON. 1 + 1?"], True, "WARNING: the system prompt does not ask for \\boxed{}"),
        (["1 + 1?"], False, "no form is asked for: right for a policy that answers in \\boxed{} by itself"),
        (["1 + 1?", "1 + 2?", "What is in \\boxed{}?"], False, "no form is asked for"),
    ],
)
def test_form_of_the_answers(prompts, has_system, says):
    assert answer_form(prompts, has_system).startswith(says)


@pytest.mark.parametrize(
    ("prompt", "says"),
    [("1 + 1?", "WARNING: verifier_method strict reads"), ("In \\boxed{}. 1 + 1?", "WARNING: verifier_method strict"),
     ("End with #### 2. 1 + 1?", "behind ####, as the prompts ask")],
)  # fmt: skip
def test_a_verifier_that_reads_another_form_than_the_prompts_ask_for_is_warned_of(prompt, says):
    assert answer_form([prompt], has_system=True, method="strict").startswith(says)


def test_the_recipes_own_system_prompt_does_not_warn():
    assert answer_form([RECIPE_DEFAULTS["system_prompt"]], has_system=True) == "in \\boxed{}, as the prompts ask"


def test_long_texts_lose_their_middle():
    assert shortened("a" * 300, 20) == "aaaaaaa ... aaaaaaaa"
    assert len(shortened("word " * 300, 200)) <= 200
    assert shortened("one\n\n two", 20) == "one two"
