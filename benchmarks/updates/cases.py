"""What is updated: policies, and rows of token ids as a generation leaves them."""

import random
from dataclasses import dataclass
from typing import Any

import torch
from launches.models import POLICIES, ROOT


Batch = dict[str, torch.Tensor]

EMBEDDED = str(ROOT / "data" / "embedded_policy")

SHAPES: dict[str, dict[str, Any]] = {
    **{name: POLICIES[name] for name in ("tiny", "tinyllama")},
    "smollm2-135m": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
}

FIRST_ID = 3
"""Ids below are control tokens of every policy here."""


@dataclass(frozen=True)
class Case:
    """One optimizer step's rows, and what of which policy is trained on them.

    Attributes:
        name: In tables.
        prompt: Mean tokens of a prompt; prompts have up to a tenth more or less.
        answers: Fewest and most tokens of an answer; lengths are spread evenly in between.
        group: Answers to a prompt.
        rows: Answers of an optimizer step on one process.
        micro_batch: Rows of a forward.
        lora: Adapters on all linear layers are trained, else all weights.
        embedded: The embedded policy, else random weights of the shape that is asked for.
    """

    name: str
    prompt: int
    answers: tuple[int, int]
    group: int = 8
    rows: int = 32
    micro_batch: int = 8
    lora: bool = False
    embedded: bool = False

    @property
    def micro_batches(self) -> int:
        """Forwards of an optimizer step."""
        return self.rows // self.micro_batch

    @property
    def padded_tokens(self) -> int:
        """Tokens of the step where each row is padded to the longest, about."""
        return self.rows * (self.prompt + self.answers[1])


CASES = (
    Case("short", 53, (4, 16), micro_batch=16),
    Case("short, groups of 4", 53, (4, 16), group=4, micro_batch=16),
    Case("short, groups of 16", 53, (4, 16), group=16, micro_batch=16),
    Case("short, 4 of 8 fit", 53, (4, 16), rows=16, micro_batch=4),
    Case("gsm8k", 120, (60, 150), rows=16),
    Case("long prompts", 200, (20, 60), rows=16),
    Case("long answers", 40, (80, 200), rows=16),
    Case("short, LoRA", 53, (4, 16), micro_batch=16, lora=True),
    Case("embedded, LoRA", 11, (10, 28), rows=128, micro_batch=128, lora=True, embedded=True),
)


def make_rows(case: Case, vocab_size: int, seed: int = 0) -> Batch:
    """Make an optimizer step's rows as TRL's generation leaves them: prompts padded on the left, answers on the right.

    Args:
        case: How many, and how long.
        vocab_size: Above every id.
        seed: Of ids, lengths and advantages.

    Returns:
        `prompt_ids`, `prompt_mask`, `completion_ids`, `completion_mask`, each (rows, longest), `advantages` (rows,)
        and `num_items_in_batch`, the number of answers' tokens.
    """
    generator = random.Random(seed)
    least, most = case.answers
    # Spread evenly and the longest among them: what padding costs does not hang on luck.
    lengths = [least + round((most - least) * row / max(1, case.rows - 1)) for row in range(case.rows)]
    generator.shuffle(lengths)
    ids = range(FIRST_ID, vocab_size)
    prompt: list[int] = []
    prompts, answers = [], []
    for row, length in enumerate(lengths):
        if row % case.group == 0:
            prompt = generator.choices(ids, k=round(case.prompt * generator.uniform(0.9, 1.1)))
        prompts.append(prompt)
        answers.append(generator.choices(ids, k=length))
    prompt_ids, prompt_mask = padded(prompts, left=True)
    completion_ids, completion_mask = padded(answers, left=False)
    return {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": completion_ids,
        "completion_mask": completion_mask,
        "advantages": torch.tensor([generator.gauss(0, 1) for _ in lengths]),
        "num_items_in_batch": completion_mask.sum(),
    }


def padded(rows: list[list[int]], left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad to the longest; return ids and mask, both (rows, longest)."""
    longest = max(map(len, rows))
    masks = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    ids = [row + [0] * (longest - len(row)) for row in rows]
    if left:
        masks = [mask[::-1] for mask in masks]
        ids = [[0] * (longest - len(row)) + row for row in rows]
    return torch.tensor(ids), torch.tensor(masks)


def sorted_by_length(rows: Batch, micro_batches: int) -> list[Batch]:
    """Cut rows into micro-batches of similar lengths, each padded to its own longest prompt and answer."""
    order = (rows["prompt_mask"].sum(1) + rows["completion_mask"].sum(1)).argsort(stable=True)
    return [
        trimmed({name: value[places] if value.ndim else value for name, value in rows.items()})
        for places in order.chunk(micro_batches)
    ]


def trimmed(rows: Batch) -> Batch:
    """Take off the padding that all of some rows have."""
    prompt, answer = (int(rows[f"{name}_mask"].sum(1).max()) for name in ("prompt", "completion"))
    parts = {f"prompt_{kind}": rows[f"prompt_{kind}"][:, -prompt:] for kind in ("ids", "mask")}
    parts |= {f"completion_{kind}": rows[f"completion_{kind}"][:, :answer] for kind in ("ids", "mask")}
    return rows | parts
