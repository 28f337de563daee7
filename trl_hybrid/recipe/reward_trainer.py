"""TRL's `RewardTrainer` on rows that our own template made, and the one-label model that comes of it."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftConfig, PeftModel, TaskType
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging
from trl import ModelConfig, RewardTrainer

from trl_hybrid.errors import InputError
from trl_hybrid.evaluation.pairs import Answer, Pair, distinct_samples
from trl_hybrid.evaluation.ranking import ScoredGroup
from trl_hybrid.evaluation.statistics import same_answer
from trl_hybrid.models.files import ADAPTER_CONFIG, weight_files
from trl_hybrid.recipe.run import adapter_config
from trl_hybrid.reward_model import RewardModel
from trl_hybrid.reward_model.loading import whole_weights
from trl_hybrid.reward_model.plan import Row
from trl_hybrid.reward_model.prompts import RowRenderer
from trl_hybrid.runs.folder import read_json
from trl_hybrid.training.checkpoint import TrainsToTheLastStep
from trl_hybrid.verifier import is_blank


class RewardModelTrainer(TrainsToTheLastStep, RewardTrainer):
    """TRL's trainer; a run that is resumed after its last step is only measured and saved.

    It is given token ids, so that a row is in training what it is when it is scored; see [`pair_dataset`].
    """


def answer_groups(
    rows: Sequence[dict[str, Any]], renderer: RowRenderer, gold_as_right: bool = False
) -> list[list[Answer]]:
    """Read each problem's distinct answers as the reward model will.

    Args:
        rows: Problems with judged `samples`.
        renderer: The reward model's.
        gold_as_right: Whether the gold in a box stands for a right answer where there is none.

    Returns:
        One list a problem, maybe empty.
    """
    groups = [distinct_samples(row["samples"]) for row in rows]
    if gold_as_right:
        groups = [_with_gold(group, row) for group, row in zip(groups, rows, strict=True)]
    flat = [(row["prompt"], sample) for row, group in zip(rows, groups, strict=True) for sample in group]
    rendered = iter(
        renderer.render(
            [prompt for prompt, _ in flat],
            [sample["completion"] for _, sample in flat],
            [sample["truncated"] for _, sample in flat],
        )
    )
    return [[Answer(next(rendered).ids, sample["correct"]) for sample in group] for group in groups]


def _with_gold(group: list[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    gold = str(row["solution"])
    if is_blank(gold) or not group or any(sample["correct"] for sample in group):
        return group
    return [*group, {"completion": f"\\boxed{{{gold}}}", "truncated": False, "correct": True}]


def pair_dataset(pairs: Sequence[Pair]) -> Dataset:
    """Return the pairs in the columns of token ids that TRL's trainer takes as they are."""
    return Dataset.from_dict(
        {"chosen_ids": [pair.right.ids for pair in pairs], "rejected_ids": [pair.wrong.ids for pair in pairs]}
    )


def padding_token(tokenizer: PreTrainedTokenizerBase, endings: Iterable[int]) -> str:
    """Choose a token to pad with that no row ends with: its own where it can be.

    transformers takes the last token that is not padding for a row's end. Where a template closes its turns by the
    padding token, it would train the score of the token before, and score another one than is scored later.

    Args:
        tokenizer: The reward model's.
        endings: Last tokens of rows.

    Raises:
        InputError: There is none.
    """
    taken = set(endings)
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    for token in (tokenizer.pad_token, tokenizer.unk_token, tokenizer.bos_token, *special):
        if token is not None and tokenizer.convert_tokens_to_ids(token) not in taken:
            return str(token)
    raise InputError(
        f"A reward model is trained with a padding token that ends no row, but each special token of "
        f"{tokenizer.name_or_path!r} does. Add one: tokenizer.add_special_tokens({{'pad_token': '<pad>'}}), then "
        "model.resize_token_embeddings(len(tokenizer)), and save both."
    )


def score_adapter_config(model: ModelConfig) -> PeftConfig | None:
    """Return the adapter that is asked for, for a classifier, whose score head is trained whole; None without."""
    config: Any = adapter_config(model)
    if config is not None:
        config.task_type = TaskType.SEQ_CLS
        config.modules_to_save = sorted({*(config.modules_to_save or []), "score"})
    return config


@torch.no_grad()
def scores_in_memory(trainer: Any, rows: Sequence[Row]) -> list[float]:
    """Score rows one by one with the model that was trained; under ZeRO-3 every process must call it."""
    model = trainer.model
    was_training = model.training
    model.eval()
    try:
        device = trainer.accelerator.device
        return [float(model(input_ids=torch.tensor([row], device=device)).logits[0, 0]) for row in rows]
    finally:
        model.train(was_training)


def merge_adapter(folder: Path, dtype: str | None, trust_remote_code: bool = False) -> None:
    """Put the whole one-label model that a saved adapter makes in the adapter's place; its checkpoints stay.

    Args:
        folder: The adapter's, with its tokenizer.
        dtype: Number type of the weights.
        trust_remote_code: Run code of the base model's repository.
    """
    adapter = read_json(folder / ADAPTER_CONFIG)
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # a base has no score head, which the adapter brings
    try:
        with whole_weights():
            base: Any = AutoModelForSequenceClassification.from_pretrained(
                adapter["base_model_name_or_path"],
                revision=adapter.get("revision"),
                num_labels=1,
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
            )
            merged: Any = PeftModel.from_pretrained(base, str(folder), use_safetensors=True).merge_and_unload()
    finally:
        transformers_logging.set_verbosity(verbosity)
    merged.config.get_text_config().pad_token_id = AutoTokenizer.from_pretrained(folder).pad_token_id
    for file in (*weight_files(folder), folder / ADAPTER_CONFIG):
        file.unlink()
    merged.save_pretrained(folder)


def scored_groups(rows: Sequence[dict[str, Any]], reward_model: RewardModel) -> tuple[list[ScoredGroup], int]:
    """Score all judged answers to problems.

    Args:
        rows: Problems with judged `samples`.
        reward_model: The trained one.

    Returns:
        One group a problem, and how many answers were scored.
    """
    groups = [[sample for sample in row["samples"] if sample["correct"] is not None] for row in rows]
    prompts = [row["prompt"] for row, group in zip(rows, groups, strict=True) for _ in group]
    texts = [sample["completion"] for group in groups for sample in group]
    cut_off = [sample["truncated"] for group in groups for sample in group]
    scores = iter(reward_model(prompts, texts, completion_truncated=cut_off))
    lengths = iter(len(row.ids) for row in reward_model.renderer.render(prompts, texts, cut_off))
    scored = [
        ScoredGroup(
            scores=[next(scores) for _ in group],
            right=[sample["correct"] for sample in group],
            lengths=[next(lengths) for _ in group],
            votes=votes([sample["answer"] for sample in group]),
            whole=[not sample["truncated"] for sample in group],
        )
        for group in groups
    ]
    return scored, len(texts)


def votes(answers: Sequence[str | None]) -> list[int]:
    """Count for each answer of a group how many give the same; 0 for none.

    >>> votes(["7", None, "7.0", "8"])
    [2, 0, 2, 1]
    """
    return [
        0 if one is None else sum(other is not None and same_answer(one, other) for other in answers)
        for one in answers
    ]
