"""Several answers to a prompt, the prompt computed once.

transformers computes each row's prompt before its first token, also where rows share it. Here the distinct prompts go
through the model once, all but their last tokens, and every row goes on from a copy of its prompt's keys and values.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from transformers import DynamicCache

from trl_hybrid.packing.attention import can_pack


UNDERSTOOD = frozenset(
    {"generation_config", "logits_processor", "stopping_criteria", "disable_compile", "synced_gpus"}
)
"""What `generate` may be given beside rows; with anything else, such as images, it is left to transformers."""


PLAIN = {"cache_implementation": None, "num_beams": 1, "num_return_sequences": 1, "use_cache": True}
"""What a generation must be like, where it says so: of beams `generate` repeats the rows, but no cache."""


def can_prefill_once(model: Any) -> bool:
    """Say whether a model's answers may go on from keys and values that another row's prompt left."""
    prompt_learning = isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning
    return can_pack(model.config) and not prompt_learning


def is_plain(*configs: Any) -> bool:
    """Say whether generation configurations ask for one answer a row, in a cache that grows with it."""
    said = [(getattr(config, name, None), plain) for config in configs for name, plain in PLAIN.items()]
    return all(value is None or value == plain for value, plain in said)


@contextmanager
def prompts_prefilled_once(model: Any) -> Iterator[None]:
    """Let a model's `generate` compute each distinct prompt once, as long as the context lasts.

    Args:
        model: A causal language model; one that this cannot serve generates as ever.
    """
    if not can_prefill_once(model):
        yield
        return
    before = model.__dict__.get("generate")
    model.generate = partial(generate, model, model.generate)
    try:
        yield
    finally:
        del model.generate
        if before is not None:
            model.generate = before


@torch.no_grad()
def generate(
    model: Any,
    generate_rows: Callable[..., Any],
    *others: Any,
    input_ids: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
    **settings: Any,
) -> Any:
    """Continue rows as transformers' `generate` does, their shared prompts computed once.

    Args:
        model: The model.
        generate_rows: Its own `generate`.
        *others: With any, or without one of the two that follow, it is left to transformers.
        input_ids: Prompts padded on the left, shape (rows, width).
        attention_mask: 0 for padding, same shape.
        **settings: For `generate`.

    Returns:
        What `generate` returns. Up to the rounding of logits it is what it would be without this.
    """
    rows = {"input_ids": input_ids, "attention_mask": attention_mask}
    if others or input_ids is None or attention_mask is None:
        return generate_rows(*others, **{name: value for name, value in rows.items() if value is not None}, **settings)
    first, members = distinct_rows(torch.cat([input_ids, attention_mask], dim=1))
    plain = is_plain(model.generation_config, settings.get("generation_config"))
    repeated = input_ids.shape[1] > 1 and len(first) < len(members)
    if not (repeated and plain and UNDERSTOOD.issuperset(settings)):
        return generate_rows(**rows, **settings)
    name = cache_keyword(model)
    cache = DynamicCache(config=model.config)
    ids, mask = input_ids[first, :-1], attention_mask[first, :-1]
    model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.long().cumsum(-1) - 1).clamp(min=0),
        use_cache=True,
        logits_to_keep=1,
        **{name: cache},
    )
    cache.batch_select_indices(torch.tensor(members, device=input_ids.device))
    return generate_rows(**rows, **settings, **{name: cache})


def distinct_rows(rows: torch.Tensor) -> tuple[list[int], list[int]]:
    """Return where each distinct row comes first, and for every row which of these it is.

    Example:
        >>> distinct_rows(torch.tensor([[1, 2], [3, 4], [1, 2]]))
        ([0, 1], [0, 1, 0])
    """
    slots: dict[tuple[int, ...], int] = {}
    first: list[int] = []
    members: list[int] = []
    for place, row in enumerate(map(tuple, rows.tolist())):
        if row not in slots:
            slots[row] = len(first)
            first.append(place)
        members.append(slots[row])
    return first, members


def cache_keyword(model: Any) -> str:
    """Return under which name a model takes keys and values: older versions of transformers have another one."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    return "cache" if "cache" in inspect.signature(base.forward).parameters else "past_key_values"
