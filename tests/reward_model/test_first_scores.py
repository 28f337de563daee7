import logging
import math

import pytest

from trl_hybrid.reward_model.first_scores import check_scores
from trl_hybrid.reward_model.presets import find_preset, known_licence
from trl_hybrid.reward_model.prompts import RowRenderer


class LengthJudge:
    """Scores a row by its length, and by the size of its batch where it is faulty."""

    def __init__(self, sign=1, fault=0.0):
        self.sign = sign
        self.fault = fault

    def score(self, rows):
        return [self.sign * len(row) + self.fault * len(rows) for row in rows]


@pytest.fixture
def renderer(tokenizer_of):
    return RowRenderer(tokenizer_of("chatml"))


def test_a_sound_model_passes_without_a_word(renderer, caplog):
    check_scores("RM", renderer, LengthJudge(), tolerance=1e-3, prefers_solutions=True)
    assert not caplog.records


def test_scores_that_depend_on_the_batch_are_refused(renderer):
    with pytest.raises(ValueError, match="alike in a batch and alone"):
        check_scores("RM", renderer, LengthJudge(fault=1.0), tolerance=1e-3, prefers_solutions=False)


def test_rounding_of_a_score_near_zero_is_measured_by_the_larger_one(renderer):
    """As in bf16, where both scores are rounded alike, however small their sums turn out."""

    class Rounding:
        def score(self, rows):
            return [(12.0 if len(row) > 100 else 0.1) + 0.2 * len(rows) for row in rows]

    check_scores("RM", renderer, Rounding(), tolerance=0.1, prefers_solutions=False)
    with pytest.raises(ValueError, match="alike in a batch and alone"):
        check_scores("RM", renderer, Rounding(), tolerance=1e-3, prefers_solutions=False)


def test_a_known_model_that_prefers_nothing_is_refused(renderer):
    with pytest.raises(ValueError, match="must prefer a worked solution"):
        check_scores("RM", renderer, LengthJudge(sign=-1), tolerance=1e-3, prefers_solutions=True)


def test_an_unknown_model_may_prefer_anything(renderer, caplog):
    check_scores("RM", renderer, LengthJudge(sign=-1), tolerance=1e-3, prefers_solutions=False)
    assert not caplog.records


def test_scores_that_are_not_finite_are_told(renderer, caplog):
    with caplog.at_level(logging.WARNING):
        check_scores("RM", renderer, LengthJudge(sign=math.nan), tolerance=1e-3, prefers_solutions=True)
    assert "not finite" in caplog.text


@pytest.mark.parametrize("name", ["nvidia/AceMath-7B-RM", "nvidia/AceMath-72B-RM", "/copies/AceMath-7B-RM"])
def test_acemath_is_known_with_its_prompt(name):
    preset = find_preset(name)
    assert preset.system_prompt == "Please reason step by step, and check your final answer within \\boxed{}."


def test_skywork_has_no_system_prompt():
    preset = find_preset("Skywork/Skywork-Reward-V2-Llama-3.1-8B")
    assert preset.system_prompt is None


def test_a_licence_is_known_of_published_weights_and_of_a_folder_with_a_card(tmp_path):
    assert known_licence("nvidia/AceMath-72B-RM") == "cc-by-nc-4.0"
    assert known_licence("Skywork/Skywork-Reward-V2-Llama-3.1-8B") is None  # Llama's, not Apache's
    folder = tmp_path / "AceMath-7B-RM"  # its name says nothing about the weights in it
    folder.mkdir()
    assert known_licence(str(folder)) is None
    (folder / "README.md").write_text("# Weights of my own\n")
    assert known_licence(str(folder)) is None
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    assert known_licence(str(folder)) == "cc-by-nc-4.0"
