"""The card of a reward model says what it learned from, how well it ranks, and whether length is what it learned."""

import pytest
from hub_run import make_reward_model_run

from trl_hybrid.hub.reward_model_card import make_reward_model_card
from trl_hybrid.runs.record import read_record


@pytest.fixture
def make(tmp_path):
    def card(licence=None, **kwargs):
        return make_reward_model_card(read_record(make_reward_model_run(tmp_path / "rm", **kwargs)), "me/rm", licence)

    return card


def test_what_was_learned_and_measured_is_told(make):
    card = make("apache-2.0")
    for part in (
        "# rm\n",
        "RewardModel('me/rm')",
        "On 60 problems that training did not see, with 720 answers",
        "| AUC within problems | 0.80 [0.70, 0.90] | 41 |",
        "640 pairs from 900 distinct answers to 240 problems of `addition` (local), by `embedded_policy` (a local",
        "80 pairs were left out",
        "40 steps.",
        "pairs_per_problem: 8",
        "| base model: `embedded_policy` (a local folder) | apache-2.0 |",
        "- trl 1.16.0",
    ):
        assert part in card.text
    assert "Take care" not in card.text
    assert card.data.pipeline_tag == "text-classification"
    assert {"license", "base_model", "datasets"}.isdisjoint(card.data.to_dict())


def test_a_shortcut_and_a_lack_of_figures_are_told(make):
    longer = {"value": 0.2, "low": 0.1, "high": 0.3, "problems": 30}
    assert (
        "Take care: it puts right answers that are longer above wrong ones in 20% only"
        in make(figures={"auc": longer, "right_longer": longer}).text
    )


def test_whose_answers_were_learned_is_told(make):
    text = make(policies=["lab/policy", "runs/mine"], dataset_name="openai/gsm8k", figures={}).text
    assert "[lab/policy](https://huggingface.co/lab/policy)" in text
    assert "Nothing could be measured" in text


def test_answers_from_files_are_said_to_be(make):
    assert "by models whose answers were given as files." in make(samples=["mine.jsonl"]).text


@pytest.mark.parametrize("near_misses", [True, False])
def test_near_misses_among_the_pairs_are_said(make, near_misses):
    said = "and nobody's preferences are in it. Two wrong numbers were pairs too, the nearer to the gold as the better"
    assert (said in make(near_misses=near_misses).text) is near_misses
