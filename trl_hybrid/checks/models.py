"""The expensive half of `trl-hybrid check`: load the configured models, and judge one completion."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HTTPError
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import ModelConfig, get_quantization_config

from trl_hybrid.checks.finding import Finding
from trl_hybrid.checks.machine import HUB_SECONDS
from trl_hybrid.memory.estimates import named_dtype, policy_of, reserved_bytes
from trl_hybrid.memory.size import size
from trl_hybrid.models.check import check_model, check_reward_model
from trl_hybrid.recipe.options import JudgeArguments, reward_model_settings
from trl_hybrid.recipe.preflight import check_judges
from trl_hybrid.reward_model import RewardModel
from trl_hybrid.reward_model.footprint import measure_footprint
from trl_hybrid.reward_model.host_memory import free_host_bytes
from trl_hybrid.reward_model.loading import Source, load_config
from trl_hybrid.training.config import HybridGRPOConfig
from trl_hybrid.verifier import MathVerifier


ANSWER_TOKENS = 64

SMALLER = "Take smaller models, or the embedded ones: --config recipes/configs/embedded.yaml"

Ask = Callable[[str], bool]


class ModelChecks:
    """Loads the policy and the reward model as a run would, one after the other, after asking.

    Args:
        judges: Which reward model, and where it goes.
        training: The recipe's settings.
        model: Which policy.
        rows: Problems, rows of `prompt` and `solution`; the policy answers the first.
        verifier: Judges the answer.
        ask: Shows a question and returns the answer.
    """

    def __init__(
        self,
        judges: JudgeArguments,
        training: HybridGRPOConfig,
        model: ModelConfig,
        rows: list[dict[str, Any]],
        verifier: MathVerifier,
        ask: Ask,
    ) -> None:
        self.judges, self.training, self.model = judges, training, model
        self.rows, self.verifier, self.ask = rows, verifier, ask
        self.completion: str | None = None

    def policy(self) -> Iterator[Finding]:
        """Load the policy and let it answer the first problem."""
        name, revision = str(self.model.model_name_or_path), self.model.model_revision
        if not self.ask(f"Load the policy {name} ({where_from(name, revision)})?"):
            yield Finding("skipped", f"The policy {name} was not loaded")
            return
        check_model(name, "policy", revision, self.training.trust_remote_code)
        needed = policy_of(self.model, self.training).weight_bytes
        short = self._shortage("policy", needed, on_gpu=True)
        if short:
            yield short
            return
        started = time.perf_counter()
        policy, tokenizer = self._load_policy(name)
        yield Finding("ok", f"{size(needed)} of weights loaded in {time.perf_counter() - started:.1f} s")
        if self.rows:
            self.completion = self._answer(policy, tokenizer)
            yield Finding("ok", f"It answers {self.completion[:80]!r}")

    def reward_model(self) -> Iterator[Finding]:
        """Load the reward model and have both judges judge known answers, and the policy's."""
        judges = self.judges
        name, revision = judges.reward_model_name_or_path, judges.reward_model_revision
        served = judges.reward_model_server_url
        if not self.ask(
            f"Ask the reward model {name}'s server {served}?"
            if served
            else f"Load the reward model {name} ({where_from(name, revision)})?"
        ):
            yield Finding("skipped", f"The reward model {name} was not loaded, and no completion was scored")
            return
        check_reward_model(name, revision, judges.reward_model_trust_remote_code, served=served is not None)
        short = self._shortage("reward model", 0 if served else self._reward_model_host_bytes(), on_gpu=False)
        if short:
            yield short
            return
        torch.cuda.empty_cache()  # of what the policy left
        started = time.perf_counter()
        reserved = reserved_bytes(self.model, self.training, measures=True, processes=1)
        scorer = RewardModel(
            name, reserved_memory=reserved, device=self.training.device, **reward_model_settings(judges)
        )
        seconds = f"{time.perf_counter() - started:.1f} s"
        yield Finding(
            "ok",
            f"Behind {served}: asked, and its tokenizer and configuration loaded, in {seconds}; no weights are here"
            if served
            else f"Loaded (placement {scorer.placement}) in {seconds}",
        )
        yield from self._judge(scorer)

    def _judge(self, scorer: RewardModel) -> Iterator[Finding]:
        if not self.rows:
            yield Finding("skipped", "No completion was scored: there is no problem to answer")
            return
        scores = check_judges(self.verifier, scorer, self.rows)
        low, high = scores["min_score"], scores["max_score"]
        yield Finding(
            "ok", f"It scores the gold answers of {min(10, len(self.rows))} problems {low:.2f} to {high:.2f}"
        )
        row = self.rows[0]
        whose = "The policy's completion" if self.completion is not None else "The gold answer as a completion"
        completion = self.completion if self.completion is not None else f"\\boxed{{{row['solution']}}}"
        score = scorer.compute_reward(row["prompt"], completion)
        verdict = self.verifier.verify(row["prompt"], completion, row["solution"])
        judged = {True: "right", False: "wrong", None: "not to be judged"}[verdict.correct]
        yield Finding("ok", f"{whose} is {judged} ({verdict.reason}), with a score of {score:.2f}")

    def _load_policy(self, name: str) -> tuple[Any, Any]:
        device, trusted = self.training.device, self.training.trust_remote_code
        policy = AutoModelForCausalLM.from_pretrained(
            name,
            revision=self.model.model_revision,
            dtype=self.model.dtype or "auto",
            use_safetensors=True,
            trust_remote_code=trusted,
            quantization_config=get_quantization_config(self.model),
            **({} if device.type == "cpu" else {"device_map": {"": device}}),
        )
        tokenizer = AutoTokenizer.from_pretrained(name, revision=self.model.model_revision, trust_remote_code=trusted)
        return policy.eval(), tokenizer

    def _answer(self, policy: Any, tokenizer: Any) -> str:
        batch = tokenizer.apply_chat_template(
            [self.rows[0]["prompt"]], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        ).to(policy.device)
        padding = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        with torch.no_grad():
            ids = policy.generate(**batch, max_new_tokens=ANSWER_TOKENS, do_sample=False, pad_token_id=padding)
        return tokenizer.decode(ids[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)

    def _reward_model_host_bytes(self) -> int:
        """Bytes of host memory that the reward model's weights take; with a GPU, 0 for `auto`, which looks itself."""
        judges, on_gpu = self.judges, self.training.device.type != "cpu"
        placement: Any = judges.reward_model_placement
        if placement == "auto" or (placement in ("resident", "streamed") and not on_gpu):
            placement = "resident" if on_gpu else "cpu"
        trusted = judges.reward_model_trust_remote_code
        config = load_config(Source(judges.reward_model_name_or_path, judges.reward_model_revision, trusted))
        footprint = measure_footprint(config, named_dtype(judges.reward_model_dtype), trusted)
        return footprint.host_bytes(placement)

    def _shortage(self, role: str, needed: int, on_gpu: bool) -> Finding | None:
        """A problem where there is no room: the system would end this process without a word."""
        free, where = free_host_bytes(), "memory"
        if on_gpu and self.training.device.type == "cuda":
            free, where = torch.cuda.mem_get_info(self.training.device)[0], "GPU memory"
        if needed <= free:
            return None
        return Finding("problem", f"The {role} takes {size(needed)} of {where}, {size(free)} are free", SMALLER)


def where_from(name: str, revision: str | None = None) -> str:
    """Say where a model's weights lie, or how much loading it would download.

    Returns:
        Such as "0.2 GB in that folder", "in the cache", "downloads 14.1 GB".
    """
    if Path(name).is_dir():
        return f"{size(sum(file.stat().st_size for file in Path(name).glob('*.safetensors')))} in that folder"
    indexes = ("model.safetensors", "model.safetensors.index.json")
    if any(isinstance(try_to_load_from_cache(name, file, revision=revision), str) for file in indexes):
        return "in the cache"
    try:
        files = HfApi().model_info(name, revision=revision, timeout=HUB_SECONDS, files_metadata=True).siblings or []
    except (OSError, ValueError, HTTPError):
        return "a download of unknown size: the Hub does not say"
    return f"downloads {size(sum(file.size or 0 for file in files if file.rfilename.endswith('.safetensors')))}"
