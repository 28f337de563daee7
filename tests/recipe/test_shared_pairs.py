"""A reward model learns from packed pairs what it learns from TRL's padded ones."""

import logging
from itertools import groupby

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pair_trainer import POLICY, pair_trainer, render_answers
from peft import LoraConfig, TaskType

from trl_hybrid.recipe.answer_pairs import answer_groups
from trl_hybrid.recipe.shared_pairs import ProblemsTogether
from trl_hybrid.reward_model.loading import Source, load_tokenizer


def problem(number):
    texts = {f"It is {number + 1}.": False, f"1 + {number} = {number + 1}. So {number}.": False, "No.": False}
    texts |= {f"The answer is \\boxed{{{number + 2}}}.": True, f"{number + 2}": True}
    return {
        "prompt": [{"role": "user", "content": f"What is the sum of the numbers 2 and {number}?"}],
        "solution": str(number + 2),
        "samples": [
            {"completion": text, "correct": right, "truncated": False, "answer": None} for text, right in texts.items()
        ],
    }


@pytest.fixture(scope="module")
def renderer():
    return render_answers(load_tokenizer(Source(POLICY)), [problem(number) for number in (3, 14)])[0]


def make_trainer(folder, renderer, peft_config=None, settings=None, **more):
    groups = answer_groups([problem(number) for number in (3, 14, 159)], renderer)
    ours = {"per_device_train_batch_size": 9, "seed": 3, "logging_steps": 1, "center_rewards_coefficient": 0.01}
    settings = ours | (settings or {})
    return pair_trainer(folder, renderer, groups, settings, peft_config=peft_config, **more)


def gradients(trainer):
    """The loss of the first batch in grouped order, and every gradient."""
    order = list(ProblemsTogether(trainer.train_dataset["problem"], seed=3))[:9]
    inputs = trainer.data_collator([trainer.train_dataset[place] for place in order])
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    named = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    return loss.item(), named


@pytest.mark.parametrize("settings", [{}, {"gradient_checkpointing": True}])
@pytest.mark.parametrize("lora", [False, True])
def test_loss_and_gradients_are_those_of_padded_rows(tmp_path, renderer, lora, settings):
    config = LoraConfig(task_type=TaskType.SEQ_CLS, r=4, modules_to_save=["score"]) if lora else None
    packed = make_trainer(tmp_path / "packed", renderer, config, settings=settings)
    plain = make_trainer(tmp_path / "plain", renderer, config, settings=settings, shared_prompts=False)
    plain.model.load_state_dict(packed.model.state_dict())
    (loss, found), (expected_loss, expected) = gradients(packed), gradients(plain)
    assert packed.shares_starts is True
    assert plain.shares_starts is False
    assert loss == pytest.approx(expected_loss, abs=1e-6)
    assert found.keys() == expected.keys()
    assert any(gradient.abs().max() > 1e-3 for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_a_packed_batch_has_each_problem_and_each_answer_once(tmp_path, renderer, monkeypatch):
    trainer = make_trainer(tmp_path, renderer)
    seen = []
    trainer.model.model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((kwargs.get("input_ids") if not args else args[0]).shape), with_kwargs=True
    )
    gradients(trainer)
    groups = answer_groups([problem(number) for number in (3, 14, 159)], renderer)
    # Nine pairs are eight of one problem and one of the next: at most its five answers and two of the other's.
    padded, checked, packed = seen
    assert padded[0] == 18
    assert checked == packed
    longest_problem = max(min(len(answer.ids) for answer in group) for group in groups)
    endings = sum(len(answer.ids) for group in groups[:2] for answer in group)
    assert packed[0] == 1
    assert packed[1] < endings
    assert packed[1] < padded[0] * padded[1] / 3
    assert packed[1] > longest_problem


def test_training_says_the_same_figures_and_uses_the_heads_learning_rate(tmp_path, renderer):
    trainer = make_trainer(tmp_path, renderer, head_learning_rate=0.05, settings={"warmup_steps": 0})
    trainer.train()
    rates = {id(p): group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    initial = {id(p): group["initial_lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    model = trainer.model
    assert initial[id(model.score.weight)] == 0.05
    assert {initial[id(p)] for name, p in model.named_parameters() if "score" not in name} == {1e-2}
    assert len(rates) == len(list(model.parameters()))
    (first, *_) = trainer.state.log_history
    assert {"loss", "accuracy", "margin", "mean_reward", "num_tokens"} <= first.keys()


def test_a_model_whose_attention_is_its_own_is_trained_as_trl_does(tmp_path, renderer, caplog):
    with caplog.at_level(logging.WARNING):
        trainer = make_trainer(
            tmp_path, renderer, settings={"model_init_kwargs": {"attn_implementation": "eager", "dtype": "float32"}}
        )
    assert trainer.shares_starts is False
    assert "each problem is computed once an answer, since attn_implementation 'eager'" in caplog.text
    assert not isinstance(trainer._get_train_sampler(), ProblemsTogether)


def test_in_mixed_precision_the_two_ways_may_differ_by_its_rounding(tmp_path, renderer):
    trainer = make_trainer(tmp_path, renderer, settings={"bf16": True})
    trainer.model.score.weight.data.mul_(100)  # scores as large as a trained head's, whose rounding shows
    inputs = trainer.data_collator([trainer.train_dataset[place] for place in range(9)])
    trainer.model.train()
    with trainer.compute_loss_context_manager():
        trainer.compute_loss(trainer.model, inputs)
    assert trainer.shares_starts is True


def test_scores_that_differ_are_not_trained_on(tmp_path, renderer, caplog, monkeypatch):
    import trl_hybrid.recipe.shared_pairs as module

    right = module.packed_scores
    monkeypatch.setattr(module, "packed_scores", lambda *args: right(*args) + 1.0)
    trainer = make_trainer(tmp_path / "packed", renderer)
    with caplog.at_level(logging.WARNING):
        loss, _ = gradients(trainer)
    assert trainer.shares_starts is False
    assert "are 1 apart" in caplog.text
    plain = make_trainer(tmp_path / "plain", renderer, shared_prompts=False)
    plain.model.load_state_dict(trainer.model.state_dict())
    assert loss == pytest.approx(gradients(plain)[0], abs=1e-6)


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(0, 3), st.integers(0, 9))
def test_every_pair_comes_once_an_epoch_and_a_problems_pairs_stand_together(problems, epoch, seed):
    sampler = ProblemsTogether(problems, seed)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert sorted(order) == list(range(len(problems)))
    assert len(sampler) == len(problems)
    drawn = [problem for problem, _ in groupby(problems[place] for place in order)]
    assert len(drawn) == len(set(problems))


def test_each_epoch_has_an_order_of_its_own_that_comes_again():
    sampler = ProblemsTogether(range(50), seed=7)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    assert orders[0] == orders[2] != orders[1]
    assert list(ProblemsTogether(range(50), seed=8)) != orders[0]
