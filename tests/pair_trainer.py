"""A reward model's trainer on pairs of answers, small and quick."""

import torch
from trl import RewardConfig

from trl_hybrid.evaluation.pairs import choose_pairs
from trl_hybrid.recipe.answer_pairs import answer_groups, pair_dataset
from trl_hybrid.recipe.reward_trainer import RewardModelTrainer, padding_token
from trl_hybrid.reward_model.prompts import RowRenderer


POLICY = "data/embedded_policy"


def render_answers(tokenizer, problems):
    """A renderer that pads no row with its end, and the answers to all problems as it reads them."""
    renderer = RowRenderer(tokenizer)
    groups = answer_groups(problems, renderer)
    tokenizer.pad_token = padding_token(tokenizer, {answer.ids[-1] for group in groups for answer in group})
    return renderer, groups


def pair_trainer(folder, renderer, groups, settings, **more):
    """A trainer that takes two steps on the pairs of the groups' answers, the same at each call."""
    settings = {
        "max_steps": 2, "learning_rate": 1e-2, "gradient_checkpointing": False, "bf16": False, "save_strategy": "no",
        "report_to": "none", "disable_tqdm": True, **settings,
    }  # fmt: skip
    torch.manual_seed(0)
    return RewardModelTrainer(
        POLICY,
        args=RewardConfig(str(folder), use_cpu=True, **settings),
        train_dataset=pair_dataset(choose_pairs(groups, 8, seed=0)),
        processing_class=renderer.tokenizer,
        **more,
    )
