import time

import pytest

from trl_hybrid.verifier import extract_answer, extract_gold
from trl_hybrid.verifier.cleaning import clean


def text_of(completion, prompt=""):
    answer = extract_answer(completion, prompt)
    return None if answer is None else answer.text


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (r"First \boxed{1}. No: \boxed{2}.", "2"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\fbox{7}", "7"),
        (r"\boxed 5.", "5."),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\beginboxed{8}", "8"),
        (r"\boxed{20} percent", r"20\%"),
        (r"\boxed{5}. Check the next step: \boxed{", "5"),
        (r"\boxed{43}$. Actually the answer is 42.", "43"),
        (r"$x = -\boxed{12}$", "-12"),
        (r"$x = \sqrt{\boxed{5}}$", r"\sqrt{5}"),
        (r"We get $2\boxed{3}$", r"2\cdot (3)"),
        (r"The area is $\boxed{3}\pi$", r"3\pi"),
        (r"The result - \boxed{8}", "8"),
    ],
)
def test_the_last_balanced_box_is_the_answer(completion, answer):
    assert text_of(completion) == answer


@pytest.mark.parametrize("completion", [r"\boxed{42", r"\boxed{42}. \boxed{}", r"the answer is 42, so \boxed{42"])
def test_text_around_a_broken_or_empty_box_does_not_rescue_it(completion):
    assert text_of(completion) is None


def test_boxes_joined_by_and_are_one_list():
    assert text_of(r"$\boxed{1}$ and $\boxed{2}$, or \boxed{3}") == "1,2,3"
    assert text_of(r"\boxed{(3, 3)} \text{ for part (a) and } \boxed{(1, 1)}") == "(3, 3),(1, 1)"


@pytest.mark.parametrize(
    "between", [". Later, ", r".\) Next, \(", ", so finally, ", ", which is wrong; instead, ", "? No, wait, "]
)
def test_a_box_in_a_sentence_of_its_own_is_a_claim_of_its_own(between):
    assert extract_answer(rf"\boxed{{1}}{between}\boxed{{2}}").text == "2"


def test_boxes_that_are_not_joined_are_not_a_list():
    assert text_of(r"\boxed{9} \boxed{9} \boxed{42}") == "42"
    assert text_of(r"\boxed{10} and then \boxed{42}") == "42"
    assert text_of(r"\boxed{41}, wait, that is wrong. \boxed{42}") == "42"


@pytest.mark.parametrize(
    ("completion", "answer", "form"),
    [
        ("6 * 3 = 18\n#### 18", "18", "hash"),
        ("<answer>\\frac{1}{2}</answer>", r"\frac{1}{2}", "tag"),
        ("<answer>1</answer> no, <answer> $2$ </answer>", "2", "tag"),
        ("The answer is 42 because geometry proves it", "42", "phrase"),
        ("Answer: 41 was a guess.\nAnswer: 42", "42", "phrase"),
        ("Final Answer: The largest $n$ is 34.", "34", "phrase"),
        ("The final answer is $(7, 6)$. I hope it is correct.", "(7, 6)", "phrase"),
        ("The answer is x + 1.", "x + 1", "phrase"),
        ("The correct option is C because of symmetry.", "C", "phrase"),
        ("The answer is 8 because 3 + 5 is 8", "8", "phrase"),
        (r"\textbf{Answer: 42}", "42", "phrase"),
        ("<answer>**42**</answer>", "42", "tag"),
        ("#### The answer is 8", "8", "hash"),
        (r"The roots are $2$ and $3$.", "2,3", "text"),
        ("5 + 5 = 10, so we need $k = 3$", "k = 3", "text"),
        ("Therefore there are 12 of them.", "12", "text"),
        ("x = 3", "x = 3", "text"),
        ("28 percent", "28 percent", "text"),
        ("<final_answer>42</final_answer>", "42", "tag"),
        ('{"steps": 3, "answer": "17"}', "17", "tag"),
        ("Antwort: 60", "60", "phrase"),
        ("The answer isn't 42, it's 41.", "41", "phrase"),
        ("The answer is 18, not 17.", "18", "phrase"),
        ("The answer is 17, I think.", "17", "phrase"),
        ("The answer is 10. Wait, I made a mistake. It should be 8.", "8", "phrase"),
        ("Option B is right.", "B", "phrase"),
        ("The answer is no solution.", "no solution", "phrase"),
        ("The answer is probably 42.", "42", "phrase"),
        (r"\boxed{Final answer: 42 apples}. That is all.", "42 apples", "box"),
        ("Solution: 42", "42", "text"),
        ("x = 12. Indeed, 12 + 3 = 15.", "x = 12.", "text"),
        ("因此，数学作业比阅读作业多 **3页**。", "3", "text"),
    ],
)
def test_forms_are_tried_in_their_order(completion, answer, form):
    found = extract_answer(completion)
    assert (found.text, found.form) == (answer, form)


@pytest.mark.parametrize(
    ("completion", "answer", "form"),
    [
        ("#### Step 1: May\n48/2 = 24.\n\n#### Step 2: Total\n48 + 24 = 72.\n\nThe answer is **72**.", "72", "phrase"),
        ("So it is.\n#### Final Answer\n72", "72", "hash"),
        ("So it is.\n#### Final Answer:\n\nThe answer is 72.\nThank you", "72", "hash"),
        ("#### Conclusion\nThe answer is 72.", "72", "phrase"),
        ("#### 2. Total\n48 + 24 = 72\nSo she sold 72 clips.", "72", "text"),
        ("#### 72\n\n#### Explanation\nMay has 24 clips.", "72", "hash"),
        ("#### 72 clips\nI hope that this helps!", "72 clips", "hash"),
        ("#### $x = 72$\nDone.", "$x = 72$", "hash"),
        ("#### \\frac{1}{2} \\text{ of them}\nDone.", "\\frac{1}{2} \\text{ of them}", "hash"),
        ("#### Monday", "Monday", "hash"),
        ("#### The answer is 72.\nDone.", "72", "hash"),
        ("The answer is 72.\n####", None, None),
        ("48 + 24 = 72\n### 72", "72", "hash"),
        ("### 1\nAdd.\n### 2\nThe answer is 72.", "72", "phrase"),
        ("### Step 1\n48 + 24 = 72", "72", "text"),
    ],
)
def test_a_heading_is_no_answer(completion, answer, form):
    found = extract_answer(completion)
    assert (found and found.text, found and found.form) == (answer, form)


def test_a_number_offered_as_one_of_several_is_no_answer():
    assert text_of("I think that it must be 41 or 42") is None
    assert text_of("I think that it must be $41$ or $42$") == "41,42"


@pytest.mark.parametrize(
    "completion",
    ["The answer is 17, but that is wrong.", "I doubt that the answer is 17.", "It is false that the answer is 17."],
)
def test_a_denied_answer_is_none(completion):
    assert text_of(completion) is None


def test_a_final_answer_behind_the_box_must_name_a_value():
    assert text_of(r"\boxed{7}. The final answer is positive, as it must be.") == "7"
    assert text_of(r"\boxed{7}. The final answer is $8$.") == "8"


def test_a_private_use_character_is_no_formula():
    assert text_of("Hence \ue0001\ue001 and so 3.") == "3"


def test_a_bound_is_no_answer():
    assert text_of("The answer is at least 42.") is None


def test_a_number_inside_a_word_is_no_number():
    assert text_of("the code of it was AZYUK2A") is None


def test_only_what_follows_the_reasoning_counts():
    assert text_of(r"<think>\boxed{41}</think> The answer is \boxed{42}.") == "42"
    assert text_of(r"<think>\boxed{42}</think> That was all of it.") is None
    assert text_of(r"reasoning \boxed{41} </think> #### 42") == "42"


def test_reasoning_that_never_ends_holds_no_answer():
    assert text_of(r"<think> so it is \boxed{42}") is None


def test_an_echo_of_the_prompt_does_not_count():
    prompt = r"What is 6 * 7? Put it in a box, as in \boxed{42}."
    assert text_of(prompt + " I do not know.", prompt) is None
    assert text_of("You asked: " + prompt + " I say #### 41", prompt) == "41"


def test_text_after_the_end_of_the_turn_does_not_count():
    assert text_of(r"\boxed{41}<|im_end|><|im_start|>user \boxed{42}") == "41"


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (
            r"<|begin_of_thought|>\boxed{41}<|end_of_thought|><|begin_of_solution|>\boxed{72}<|end_of_solution|>",
            "72",
        ),
        (r"<|begin_of_thought|>So it is \boxed{41}", None),
        (
            "<|channel|>analysis<|message|>41?<|end|><|start|>assistant<|channel|>final<|message|>The answer is 72.",
            "72",
        ),
        ("The answer is 72<｜end▁of▁sentence｜>", "72"),
        ("<｜Assistant｜>The answer is 72<｜end▁of▁sentence｜><｜User｜>The answer is 41", "72"),
        ("<|im_start|>assistant\nThe answer is 72<|im_end|>", "72"),
    ],
)
def test_tokens_of_chat_templates_are_no_part_of_the_answer(completion, answer):
    assert text_of(completion) == answer


@pytest.mark.parametrize("text", ["<answer>" + " " * 80_000 + "x", "<answer>1" + " \n" * 40_000 + "x"])
def test_an_open_tag_is_read_in_linear_time(text):
    start = time.process_time()
    assert extract_answer(text).form == "tag"
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize("spelling", ["４２", "٤٢", "4\u200b2", "\x0042\x00", "𝟒𝟐"])
def test_unicode_digits_and_invisible_characters_are_cleaned(spelling):
    assert text_of(rf"\boxed{{{spelling}}}") == "42"


def test_powers_and_fractions_keep_their_meaning_in_nfkc():
    assert clean("x²⁰ + 1½") == r"x^{20} + 1\frac{1}{2}"


@pytest.mark.parametrize(
    ("solution", "gold"),
    [
        (r"We get \boxed{1}\boxed{2}", "1,2"),
        (r"\boxed{W = 1 \text{ and } W = -1", r"W = 1 \text{ and } W = -1"),
        ("7 - 2 = 5\n#### 5", "5"),
        ("$19, 46$", "19, 46"),
        ("answer is 0.6666667", "0.6666667"),
        (r"\text{The midpoints form a hexagon}", r"\text{The midpoints form a hexagon}"),
        (" 42 ", "42"),
    ],
)
def test_gold_is_read_from_a_bare_answer_or_a_whole_solution(solution, gold):
    assert extract_gold(solution) == gold


@pytest.mark.parametrize(
    "unit",
    [
        *(
            r"\boxed{",
            r"\boxed{1} and ",
            "answer is ",
            "$a$ and ",
            "1 ",
            r"\ ",
            "<answer>",
            "#### ",
            r"\[",
            "(",
            "<think>",
        ),
        *(
            "sqrt(",
            "(1,",
            "1:",
            "**1**",
            "there are ",
            "\n- ",
            "\n",
            "!*",
            "one hundred and ",
            "2x+",
            "no ",
            "is not ",
        ),
        *("<|im_end|>", "#### 1. Total\n", "####\n"),
        *("1 hours 2 ", "Wait, ", '{"answer": ', "___", "because "),
    ],
)
def test_time_is_linear_in_the_length(unit):
    start = time.process_time()
    extract_answer(unit * (200_000 // len(unit)))
    assert time.process_time() - start < 2.0
