import pytest

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
