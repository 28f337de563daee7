"""TRL's `RewardTrainer` on rows that our own template made, and the one-label model that comes of it."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, TaskType
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging
from trl import ModelConfig, RewardTrainer

from trl_hybrid.errors import InputError
from trl_hybrid.models.files import ADAPTER_CONFIG, INDEX, weight_files
from trl_hybrid.recipe.run import adapter_config
from trl_hybrid.recipe.shared_pairs import SharesStarts, score_head
from trl_hybrid.reward_model import RewardModel
from trl_hybrid.reward_model.forwards import agree
from trl_hybrid.reward_model.loading import whole_weights
from trl_hybrid.reward_model.plan import Row
from trl_hybrid.runs.folder import being_written, read_json
from trl_hybrid.training.checkpoint import TrainsToTheLastStep


class RewardModelTrainer(SharesStarts, TrainsToTheLastStep, RewardTrainer):
    """TRL's trainer; a run that is resumed after its last step is only measured and saved.

    It is given token ids, so that a row is in training what it is when it is scored; see `pair_dataset`.

    Args:
        *args: As in `trl.RewardTrainer`.
        shared_prompts: Compute a problem once for all answers of a batch; see [`SharesStarts`].
        head_learning_rate: Of the score head, which starts from random weights; by default the others'.
        **kwargs: As in `trl.RewardTrainer`.
    """

    def __init__(
        self, *args: Any, shared_prompts: bool = True, head_learning_rate: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.head_learning_rate = head_learning_rate
        if shared_prompts:
            self.share_starts()

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """Return transformers' optimizer, the score head apart where it has a learning rate of its own."""
        known = self.optimizer is not None
        optimizer = super().create_optimizer(*args, **kwargs)
        if self.head_learning_rate is not None and not known:
            apart(optimizer, set(score_head(self.model).parameters()), self.head_learning_rate)
        return optimizer


def apart(optimizer: torch.optim.Optimizer, chosen: set[torch.Tensor], learning_rate: float) -> None:
    """Move parameters of an optimizer that has taken no step into a group with a learning rate of its own."""
    for group in list(optimizer.param_groups):
        moved = [parameter for parameter in group["params"] if parameter in chosen]
        if moved:
            group["params"] = [parameter for parameter in group["params"] if parameter not in chosen]
            optimizer.add_param_group({**group, "params": moved, "lr": learning_rate})


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
        if token is not None and tokenizer.convert_tokens_to_ids(str(token)) not in taken:
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
    """Score rows one by one with the model that was trained; under ZeRO-3 every process must call it.

    Mixed precision is off, for good: a saved model is its weights, and bfloat16 moves a score by a tenth.
    """
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    was_training = model.training
    model.eval()
    try:
        device = trainer.accelerator.device
        return [float(model(input_ids=torch.tensor([row], device=device)).logits[0, 0]) for row in rows]
    finally:
        model.train(was_training)


def merge_adapter(folder: Path, dtype: str | None, trust_remote_code: bool = False) -> None:
    """Put the whole one-label model that a saved adapter makes in the adapter's place; its checkpoints stay.

    The adapter stays until the model is whole, and is what the folder holds until `adapter_config.json` is gone.

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
    with being_written(folder) as part:
        merged.save_pretrained(part)
        new = {file.name for file in part.iterdir()}
        for name in new:
            (part / name).replace(folder / name)
    adapters = weight_files(folder)
    (folder / ADAPTER_CONFIG).unlink()
    for file in (*adapters, *weight_files(folder), folder / INDEX):  # an earlier model may have had other files
        if file.name not in new:
            file.unlink(missing_ok=True)


def check_scores_of_saved(
    folder: Path, reward_model: RewardModel, rows: Sequence[Row], trained: Sequence[float]
) -> None:
    """Compare the scores of what was saved with those of the model in memory.

    Args:
        folder: Where it was saved.
        reward_model: What was loaded from there.
        rows: Token ids.
        trained: The scores of the first of them in memory.

    Raises:
        InputError: They differ, or are not finite.
    """
    saved = [reward_model.backend.score([row])[0] for row in rows[: len(trained)]]
    if all(map(math.isfinite, trained)) and agree(saved, trained, reward_model.tolerance):
        return
    raise InputError(
        f"The model saved in {str(folder)!r} must score as the trained one, but gives {saved[:3]} and the trained one "
        f"{list(trained[:3])}. The checkpoints beside it are as they were: go on from the newest by "
        "--resume_from_checkpoint latest, with a lower learning_rate where the scores are not finite."
    )
