import pytest

from trl_hybrid.verifier import extract_answer
from trl_hybrid.verifier.prose import last_claim, later_claim, without_asides
from trl_hybrid.verifier.values import values_in
from trl_hybrid.verifier.words import NUMBER_WORDS, value_of


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        ("There are 3 bars below 40.", "3"),
        ("Of the 52 cards, 13 are hearts.", "13"),
        ("The store sold 9 shirts for $20 each.", "9"),
        ("It takes him 15 minutes to run 2 miles.", "15"),
        ("We add 5 to get 12.", "12"),
        ("So Anna has 18 stickers more than Ben, who has 7.", "18"),
        ("Six of the 20 runners were late.", "6"),
        ("Bus number 12 carried 9 passengers.", "9"),
        ("The robes take 4 bolts for 3 people and 2 dogs.", "4"),
        ("Sam has 12 apples left after giving away 8.", "12"),
        ("Tickets are $25 when 4 people share the $100 bill.", "$25"),
        ("Jane has 14 marbles, 5 more than Tom's 9.", "14"),
        ("He'll finish the 200-page book in 5 days.", "5"),
        ("72 clips were sold: 48 in April and 24 in May.", "72"),
        ("The cost was $694, which is 204 + 160 + 330.", "$694"),
        ("Over a 5-day week, that's $600.", "$600"),
        ("Driving 180 miles, he arrives after 3 hours.", "3"),
        ("They pay $62: $32 for the kids and $30 for us.", "$62"),
        ("They earn $57,500 a year for 50 weeks of work.", "$57,500"),
        ("The 42 marbles are split: 21 each.", "21"),
        ("They'll need six cars for all 28 people.", "6"),
        ("So he is left with 12 of the 20.", "12"),
        ("5.6 cars, which rounds up to 6 cars.", "6"),
        ("It would be 25 - (5 + 3), or 17.", "17"),
        ("So it is 1/4, or 25%.", "1/4"),
        ("He bought 3 pens, i.e. half of 6.", "3"),
        ("x = 3 is the only root of the equation x + 5 = 8.", "x = 3"),
    ],
)
def test_a_condition_or_known_quantity_is_not_the_claim(text, claim):
    assert last_claim(text) == claim


@pytest.mark.parametrize(
    "text",
    [
        "Sorry, I can't solve problem 3.",
        "There isn't enough information about the 10 cars.",
        "The 12 values given are not sufficient.",
        "The model has ___ dots in 2 groups.",
        "It must be under 42.",
        "It is 30 or more.",
        "42 is not the answer.",
        "I doubt that it is 17.",
        "Adding up: 7 + 5 + 3",
        "We multiply 4 by 6",
    ],
)
def test_refusals_bounds_denials_and_unfinished_operations_claim_nothing(text):
    assert last_claim(text) is None


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        ("It cannot be done at once, but the total is 42.", "42"),
        ("You can't split a person, so 2 buses are needed.", "2"),
        ("The value is 18, not 20.", "18"),
        ("So x is 12. (Check: 12 + 3 = 15.)", "12"),
        ("The mode is **30**.\n\nThis appears 4 times.", "30"),
        ("The total is 42. If you have 2 more questions, ask!", "42"),
    ],
)
def test_what_a_text_says_after_all_counts_and_what_follows_it_does_not(text, claim):
    assert last_claim(text) == claim


def test_asides_are_cut_only_from_the_end():
    assert without_asides("Check this: 3. So 4. Let me know!") == "Check this: 3. So 4."


def test_a_conclusion_behind_a_withdrawal_replaces_the_first_answer():
    assert later_claim("10. Wait, I made a mistake. It should be 8.") == "8"
    assert later_claim("10. It is 5 times 2.") is None


@pytest.mark.parametrize(
    ("sentence", "values"),
    [
        ("The ratio is 3 to 5.", ["3:5"]),
        ("It has 2^10 subsets.", ["2^10"]),
        ("The area is 36 m^3.", ["36"]),
        ("The domain is (2, ∞).", ["(2, ∞)"]),
        ("Between 7:15 and (-1, 2)", ["7:15", "(-1, 2)"]),
        ("minus 8, but 12 minus 8 is 4", ["-8", "12", "8", "4"]),
        ("It took 3 and a half of 70 000 steps", ["3.5", "70 000"]),
        ("2 hours 30 minutes", ["2 hours 30 minutes"]),
        ("the line y = 3x - 2", ["y = 3x - 2"]),
        ("1, 2, and 3", ["1", "2", "3"]),
        ("One can see it", []),
        ("Only one marble", ["1"]),
    ],
)
def test_values_are_read_whole(sentence, values):
    assert [value.text for value in values_in(sentence, [])] == values


def test_numbers_in_words_are_joined_only_below_a_scale():
    assert [value_of(match) for match in NUMBER_WORDS.finditer("two and three")] == [2, 3]
    assert [value_of(match) for match in NUMBER_WORDS.finditer("two hundred and three")] == [203]


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        ("Key points: 1. Add the apples 2. Divide by 4, which is 5 3. Thank you", "5"),
        ("1. She has 12 eggs.\n2. She sells them.", "12"),
        ("(1) There are 30 seats.\n(2) Nobody stands.", "30"),
        ("She has 2. He has 3. Together 5. So five.", "5"),
        ("The answer: 1. It is not 2.", None),
    ],
)
def test_the_markers_of_an_enumeration_are_no_numbers(text, claim):
    assert last_claim(text) == claim


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("```python\nwomen = 50\nprint(women - 16)\n```\nSo 34 women remain.", "34"),
        ("34 women remain.\n```python\nprint(50)\n```", "34"),
        ("```python\nprint(50 - 16)\n```\n```output\n34\n```", "34"),
        ("```\n34\n```", "34"),
        ("```python\nprint(50 - 16)", None),
        ("```\nprint('The answer is', 7)\n```\nThe answer is 34.", "34"),
    ],
)
def test_a_program_in_a_code_fence_is_no_prose(text, answer):
    extracted = extract_answer(text)
    assert (extracted and extracted.text) == answer
