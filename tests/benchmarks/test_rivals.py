"""Other papers' advantages, by numbers worked by hand, and in a trainer."""

import doctest
import itertools
import math
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from trl.trainer.utils import nanstd

from trl_hybrid import HybridGRPOConfig


BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

sys.path.insert(0, str(BENCHMARKS))  # where the scripts find their parts
try:
    from ablation import rivals, scorers, trainers
finally:
    sys.path.remove(str(BENCHMARKS))

NAN = math.nan


def advantages(function, verdicts, scores=None, group_size=None, **options):
    verdicts = torch.tensor(verdicts)
    scores = torch.zeros(len(verdicts)) if scores is None else torch.tensor(scores)
    return function(verdicts, scores, group_size or len(verdicts), **options).tolist()


def test_examples_of_the_docstrings():
    assert doctest.testmod(rivals).failed == 0


@pytest.mark.parametrize("function", list(trainers.ADVANTAGES.values()))
def test_row_without_a_verdict_gets_nothing_and_moves_nobody(function):
    options = {"kept": 2} if function is rivals.consistent_only else {}
    with_it = advantages(function, [1.0, NAN, 0.0, 1.0], [1.0, 99.0, 2.0, 3.0], **options)
    without = advantages(function, [1.0, 0.0, 1.0], [1.0, 2.0, 3.0], **options)
    assert with_it[1] == 0.0
    assert with_it[:1] + with_it[2:] == pytest.approx(without)


class TestSign:
    def test_needs_no_group(self):
        # 2 * 1 - 1 and 2 * 0 - 1, in a mixed group, an all-right one and an all-wrong one.
        assert advantages(rivals.verdict_sign, [1.0, 0.0, 1.0, 1.0, 0.0, 0.0], group_size=2) == [1, -1, 1, 1, -1, -1]


class TestVirtualRightAnswer:
    def test_one_right_of_eight_is_the_papers_example(self):
        # Nine rewards, two of them 1: mean 2/9, variance 9 * 2/9 * 7/9 / 8 = 0.19444, deviation 0.44096.
        paid = advantages(rivals.virtual_right_answer, [1.0, *7 * [0.0]])
        assert paid == pytest.approx([(7 / 9) / 0.440959, *7 * [(-2 / 9) / 0.440959]], rel=1e-5)
        assert [round(a, 2) for a in paid[:2]] == [1.76, -0.5]  # as printed there; GRPO's are 2.47 and -0.35

    def test_all_wrong_group_is_pushed_away_and_all_right_one_left_alone(self):
        # Nine rewards, the virtual one alone is 1: mean 1/9, variance (8/81 + 64/81) / 8 = 1/9, deviation 1/3.
        paid = advantages(rivals.virtual_right_answer, [*8 * [0.0], *8 * [1.0]], group_size=8)
        assert paid == pytest.approx([*8 * [-1 / 3], *8 * [0.0]], abs=1e-5)


class TestGroupNormalised:
    def test_equals_trls_group_scaling(self):
        verdicts = torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]])
        expected = (verdicts - verdicts.mean(1, keepdim=True)) / nanstd(verdicts, dim=1, keepdim=True)
        paid = advantages(rivals.group_normalised, verdicts.flatten().tolist(), group_size=5)
        assert paid == pytest.approx(expected.flatten().tolist(), rel=1e-5)


class TestConsistentOnly:
    def test_inconsistent_answers_are_left_out(self):
        # 3 right, 5 wrong, 4 stay: the two right ones that score highest, the two wrong ones that score lowest.
        # Verdicts 1, 1, 0, 0: mean 0.5, variance 4 * 0.25 / 3, deviation 0.57735.
        verdicts = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
        scores = [5.0, -1.0, 2.0, 9.0, 0.0, 3.0, -4.0, 1.0]
        a = 0.5 / 0.577350
        paid = advantages(rivals.consistent_only, verdicts, scores)
        assert paid == pytest.approx([a, 0, a, 0, -a, 0, -a, 0], rel=1e-5)

    def test_lone_right_answer_stays_with_the_three_lowest_wrong_ones(self):
        # Verdicts 1, 0, 0, 0: mean 0.25, variance (0.5625 + 3 * 0.0625) / 3 = 0.25, deviation 0.5.
        paid = advantages(rivals.consistent_only, [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0], [*map(float, range(8))])
        assert paid == pytest.approx([-0.5, -0.5, -0.5, 0, 1.5, 0, 0, 0], abs=1e-5)

    @pytest.mark.parametrize("rights", range(9))
    @pytest.mark.parametrize("kept", [2, 3, 4, 6, 8])
    def test_right_and_wrong_are_as_many_as_balance_asks_for(self, monkeypatch, rights, kept):
        seen = {}
        monkeypatch.setattr(rivals, "normalised", lambda values, member: seen.setdefault("stays", member).double())
        advantages(rivals.consistent_only, [1.0] * rights + [0.0] * (8 - rights), [*map(float, range(8))], kept=kept)
        stays = seen["stays"][0]
        # By trying all: k+ k- is the largest product of two numbers that there are and that add up to `kept`.
        pairs = [(k, kept - k) for k in range(kept + 1) if k <= rights and kept - k <= 8 - rights]
        best = max(a * b for a, b in pairs)
        right, wrong = int(stays[:rights].sum()), int(stays[rights:].sum())
        assert right + wrong == kept
        assert right * wrong == best
        # Scores rise with the place: the last right ones stay, and the first wrong ones.
        assert stays[rights - right : rights].all()
        assert stays[rights : rights + wrong].all()

    def test_score_that_is_not_finite_is_the_first_to_go(self):
        stays = advantages(rivals.consistent_only, [1.0, 1.0, 0.0, 0.0], [math.inf, -7.0, NAN, 7.0])
        assert [a != 0.0 for a in stays] == [False, True, False, True]


class TestQualityOfTheRight:
    def test_adds_two_advantages_each_normalised_among_its_own(self):
        # Verdicts 1, 1, 1, 0: mean 0.75, deviation 0.5, so 0.5 and -1.5. Scores of the right ones 1, 2, 6: mean 3,
        # variance (4 + 1 + 9) / 2 = 7, so -2, -1 and 3 divided by 2.64575. The wrong answer's 50 counts for nothing.
        paid = advantages(rivals.quality_of_the_right, [1.0, 1.0, 1.0, 0.0], [1.0, 2.0, 6.0, 50.0])
        d = 7**0.5
        assert paid == pytest.approx([0.5 - 2 / d, 0.5 - 1 / d, 0.5 + 3 / d, -1.5], abs=1e-5)

    def test_all_right_group_has_its_quality_only_and_lone_right_answer_none(self):
        # Scores 2 and 4: mean 3, deviation sqrt(2).
        verdicts, scores = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0], [2.0, 4.0, 9.0, 1.0, 3.0, 4.0]
        paid = advantages(rivals.quality_of_the_right, verdicts, scores, group_size=2)
        assert paid == pytest.approx([-(0.5**0.5), 0.5**0.5, 0.5**0.5, -(0.5**0.5), 0, 0], abs=1e-5)


class TestEntropyShaped:
    def test_pays_each_token_by_its_entropy_where_verdicts_agree(self):
        # Rows of an all-right, an all-wrong and a mixed group; the last token of the second row is padding.
        entropies = torch.tensor([[1.0, 0.5, 0.2], [0.4, 0.1, 9.0], [1.0, 0.5, 0.2]])
        mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 1]])
        uniform = torch.tensor([1.0, -1.0, 0.0])
        paid = rivals.entropy_shaped(torch.tensor([0.0, 0.0, 2.0]), uniform, entropies, mask, alpha=0.1)
        assert paid[0].tolist() == pytest.approx([0.1, 0.05, 0.02])
        assert paid[1, :2].tolist() == pytest.approx([0.0, -0.1 * (0.4 - 0.1)])
        assert paid[2].tolist() == [2.0, 2.0, 2.0]

    def test_no_gradient_flows_through_the_entropies(self):
        entropies = torch.ones(1, 2, requires_grad=True)
        paid = rivals.entropy_shaped(torch.zeros(1), torch.ones(1), entropies, torch.ones(1, 2))
        assert not paid.requires_grad


class Told:
    """A judge with answers given in advance."""

    def __init__(self, name, answers):
        self.__name__, self.answers = name, answers

    def __call__(self, prompts, completions, **kwargs):
        return self.answers[: len(prompts)]


class TestScorers:
    def test_shuffled_scores_stay_in_their_group_and_touch_no_other_random_numbers(self):
        told = [float(i) for i in range(80)]
        shuffled = scorers.ShuffledScores(Told("reward_model", told), group_size=8, seed=0)
        state = torch.get_rng_state()
        first, again = (list(shuffled([""] * 80, [""] * 80)) for _ in range(2))
        assert torch.equal(torch.get_rng_state(), state)
        for start in range(0, 80, 8):
            assert sorted(first[start : start + 8]) == told[start : start + 8]
        assert len({tuple(told), tuple(first), tuple(again)}) == 3

    def test_random_scores_are_new_each_time_and_touch_no_other_random_numbers(self):
        state = torch.get_rng_state()
        scorer = scorers.RandomScores(seed=0)
        first, again = (scorer([""] * 8, [""] * 8) for _ in range(2))
        assert torch.equal(torch.get_rng_state(), state)
        assert len({*first, *again}) == 16

    def test_timed_counts_what_the_scorer_takes(self, monkeypatch):
        clock = itertools.count(0.0, 1.5)
        monkeypatch.setattr(scorers.time, "perf_counter", lambda: next(clock))
        timed = scorers.Timed(Told("reward_model", [1.0, 2.0]))
        assert [timed([""] * 2, [""] * 2), timed([""] * 2, [""] * 2)] == [[1.0, 2.0], [1.0, 2.0]]
        assert timed.seconds == 3.0


VERDICTS = [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
SCORES = [2.0, 9.0, 1.0, 4.0, -3.0, -1.0, -2.0, 5.0]


def trained(folder, rival, verdicts=VERDICTS, kind=None):
    """Train one step on two groups of four answers that are judged as told, and keep the batch of the loss."""
    seen = {}

    class Spy(kind or trainers.RivalTrainer):
        def _compute_loss(self, model, inputs):
            ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
            attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
            with torch.no_grad():
                logits = model(input_ids=ids, attention_mask=attention).logits
            seen.update(inputs, logits=logits[:, -inputs["completion_ids"].shape[1] - 1 : -1])
            return super()._compute_loss(model, inputs)

    trainer = Spy(
        "data/embedded_policy",
        args=HybridGRPOConfig(
            str(folder),
            reward_mode="verifier",
            num_generations=4,
            per_device_train_batch_size=8,
            max_completion_length=12,
            max_steps=1,
            logging_steps=1,
            shuffle_dataset=False,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict(
            {"prompt": [[{"role": "user", "content": f"What is {i} + 1?"}] for i in range(2)], "solution": ["1", "2"]}
        ),
        verifier=Told("math_verifier", verdicts),
        reward_model=Told("reward_model", SCORES),
        advantages=trainers.ADVANTAGES[rival],
    )
    trainer.train()
    return seen, trainer.state.log_history[0]["loss"]


class TestTrainer:
    @pytest.mark.parametrize("rival", ["sign", "papo"])
    def test_trains_on_the_rivals_advantages(self, tmp_path, rival):
        seen, _ = trained(tmp_path, rival)
        expected = advantages(trainers.ADVANTAGES[rival], VERDICTS, SCORES, group_size=4)
        assert sorted(seen["advantages"].tolist()) == pytest.approx(sorted(expected))  # TRL shuffles the rows

    def test_zero_variance_prompts_are_paid_by_the_entropy_of_the_policy(self, tmp_path):
        seen, loss = trained(tmp_path, "rl_zvp", kind=trainers.ZeroVarianceTrainer)
        mask, wrong = seen["completion_mask"].double(), seen["uniform"] < 0.0
        assert (int(wrong.sum()), int((seen["uniform"] == 0.0).sum())) == (4, 4)
        probabilities = seen["logits"].double().softmax(-1)
        entropies = -(probabilities * probabilities.log()).sum(-1)
        highest = (entropies * mask).amax(dim=1, keepdim=True)
        tokens = seen["advantages"].double().unsqueeze(1).expand_as(mask)
        tokens = torch.where(wrong.unsqueeze(1), -0.1 * (highest - entropies), tokens)
        # Each generation is trained on once: all ratios are 1, and the loss is minus the mean advantage of a token.
        assert loss == pytest.approx(-float((tokens * mask).sum() / mask.sum()), abs=1e-5)
        assert float((tokens * mask)[wrong].sum()) < -0.1
