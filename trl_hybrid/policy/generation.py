"""Answers of a policy that depend on the problem and the seed alone, and not on the batch or what ran before."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig
from transformers.generation import (
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from trl_hybrid.policy.shared_prefill import prompts_prefilled_once


@dataclass(frozen=True)
class Decoding:
    """How each problem is answered: once greedily if asked for, then `num_samples` times at random.

    Attributes:
        num_samples: Sampled answers a problem.
        greedy: Whether the most probable answer comes first.
        max_completion_length: Tokens after which an answer is cut off.
        temperature: Above 0.
        top_p: In (0, 1]; 1 for all tokens.
        top_k: 0 for all tokens.
        min_p: In [0, 1]; None for all tokens.
        repetition_penalty: 1 for none.
        seed: With a problem's number it decides about that problem's samples.
        chat_template_kwargs: For the chat template, such as `enable_thinking`; None for none.
    """

    num_samples: int = 8
    greedy: bool = True
    max_completion_length: int = 384
    temperature: float = 0.8
    top_p: float = 1.0
    top_k: int = 0
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int = 0
    chat_template_kwargs: dict[str, Any] | None = None

    @property
    def answers(self) -> int:
        """Answers a problem."""
        return self.num_samples + self.greedy


@dataclass(frozen=True, slots=True)
class Completion:
    """The text of an answer; `truncated` where the length limit cut it off."""

    text: str
    truncated: bool


@torch.no_grad()
def generate_completions(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[dict[str, str]]],
    numbers: Sequence[int],
    decoding: Decoding,
    broken_off: Callable[[], bool] | None = None,
) -> list[list[Completion]]:
    """Answer prompts in one batch by transformers' `generate`.

    No global random state is read or changed. A problem's answers do not depend on the problems beside it, up to the
    rounding of the logits.

    Args:
        model: A causal language model in eval mode, on its device.
        tokenizer: Its tokenizer, with a chat template and a padding token.
        prompts: Chat messages, one list a prompt.
        numbers: Each prompt's number in its data set: with the seed it decides about the samples.
        decoding: How to answer.
        broken_off: Asked before each token; where it says so, the answers end there.

    Returns:
        `decoding.answers` completions a prompt, the greedy one first.
    """
    batch = tokenizer.apply_chat_template(
        list(prompts),
        add_generation_prompt=True,
        tokenize=True,
        padding=True,
        # By itself a keyword would go to the template, and the tokenizer pad on its own side.
        tokenizer_kwargs={"padding_side": "left"},
        return_dict=True,
        return_tensors="pt",
        **(decoding.chat_template_kwargs or {}),
    ).to(model.device)
    width = batch["input_ids"].shape[1]
    ends = end_tokens(model, tokenizer)
    with prompts_prefilled_once(model):
        out = model.generate(
            input_ids=batch["input_ids"].repeat_interleave(decoding.answers, dim=0),
            attention_mask=batch["attention_mask"].repeat_interleave(decoding.answers, dim=0),
            # Greedy as far as transformers is concerned: the last processor draws.
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=decoding.max_completion_length,
                repetition_penalty=decoding.repetition_penalty,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=ends,
                pad_token_id=tokenizer.pad_token_id,
            ),
            logits_processor=LogitsProcessorList([*warpers(decoding), SeededDraw(numbers, decoding, width)]),
            stopping_criteria=StoppingCriteriaList([BreakOff(broken_off)] if broken_off else []),
        )
    new = out[:, width:].tolist()
    texts = tokenizer.batch_decode(new, skip_special_tokens=True)
    completions = [
        Completion(text, truncated=not any(end in ids for end in ends)) for text, ids in zip(texts, new, strict=True)
    ]
    return [completions[i : i + decoding.answers] for i in range(0, len(completions), decoding.answers)]


class BreakOff(StoppingCriteria):
    """Ends all rows where it is asked to."""

    def __init__(self, broken_off: Callable[[], bool]) -> None:
        self.broken_off = broken_off

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Say for each row whether it ends, shape (rows,)."""
        return torch.full((len(input_ids),), self.broken_off(), dtype=torch.bool, device=input_ids.device)


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """List the tokens that end an answer, as TRL does: chat models may name several in their generation config."""
    own = model.generation_config.eos_token_id
    named = own if isinstance(own, list) else [own]
    return list(dict.fromkeys(token for token in (tokenizer.eos_token_id, *named) if token is not None))


class SeededDraw(LogitsProcessor):
    """Leaves one token possible in each row: the most probable one, or one drawn by the row's own random numbers.

    A row's token at position t is drawn by inverting the cumulative distribution at a uniform number that belongs to
    (seed, problem, sample, t), so that the next row's or an earlier problem's length makes no difference.

    Args:
        numbers: The problems' numbers.
        decoding: How many answers each, and the seed.
        prompt_length: Tokens before the first drawn one.
    """

    def __init__(self, numbers: Sequence[int], decoding: Decoding, prompt_length: int) -> None:
        self.prompt_length = prompt_length
        self.greedy = torch.tensor([decoding.greedy and i == 0 for i in range(decoding.answers)] * len(numbers))
        shape = (decoding.answers, decoding.max_completion_length)
        uniforms = [np.random.default_rng([decoding.seed, number]).random(shape) for number in numbers]
        self.uniforms = torch.from_numpy(np.concatenate(uniforms))

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor) -> torch.Tensor:
        """Set every token's score but the chosen one's to minus infinity."""
        position = input_ids.shape[1] - self.prompt_length
        cumulative = scores.softmax(-1).double().cumsum(-1)
        point = self.uniforms[:, position : position + 1].to(cumulative) * cumulative[:, -1:]
        drawn = torch.searchsorted(cumulative, point, right=True)
        chosen = torch.where(self.greedy.to(drawn.device)[:, None], scores.argmax(-1, keepdim=True), drawn)
        return torch.full_like(scores, -torch.inf).scatter_(-1, chosen, 0.0)


def warpers(decoding: Decoding) -> list[LogitsProcessor]:
    """Make transformers' own processors of a decoding's settings, in the order in which `generate` applies them."""
    return [
        *([TemperatureLogitsWarper(decoding.temperature)] if decoding.temperature != 1.0 else []),
        *([TopKLogitsWarper(decoding.top_k)] if decoding.top_k else []),
        *([TopPLogitsWarper(decoding.top_p)] if decoding.top_p < 1.0 else []),
        *([MinPLogitsWarper(decoding.min_p)] if decoding.min_p is not None else []),
    ]
