"""What `recipes/train_reward_model.py` does around its verifier and its trainer."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoConfig, PreTrainedTokenizerBase
from trl import ModelConfig, RewardConfig

from trl_hybrid.errors import InputError
from trl_hybrid.evaluation.cold_start import check_samples
from trl_hybrid.evaluation.pairs import Answer, Pair, balance_lengths, choose_pairs, merge_answers, split_problems
from trl_hybrid.evaluation.ranking import ranking_figures
from trl_hybrid.evaluation.read_rows import read_rows
from trl_hybrid.hub.origin import commit_of
from trl_hybrid.hub.saved import check_weights
from trl_hybrid.hub.upload import push_run
from trl_hybrid.memory.estimates import policy_of
from trl_hybrid.models.check import check_model, check_reward_model
from trl_hybrid.policy.generation import Decoding
from trl_hybrid.policy.source import PolicySource, default_dtype, find_policy
from trl_hybrid.recipe.answering import AnsweringRun, Turn, checkpoint_to_start_from
from trl_hybrid.recipe.asked_for import check_installed
from trl_hybrid.recipe.disk import run_bytes
from trl_hybrid.recipe.options import TaskArguments
from trl_hybrid.recipe.reward_trainer import (
    answer_groups,
    merge_adapter,
    padding_token,
    pair_dataset,
    scored_groups,
    scores_in_memory,
)
from trl_hybrid.recipe.say import say
from trl_hybrid.report import StepLines, ranking_table, reward_model_line
from trl_hybrid.report.headline import duration
from trl_hybrid.reward_model import RewardModel
from trl_hybrid.reward_model.forwards import agree
from trl_hybrid.reward_model.loading import Source, load_tokenizer
from trl_hybrid.reward_model.plan import Row
from trl_hybrid.reward_model.prompts import RowRenderer
from trl_hybrid.runs.folder import package_versions, relative_path, write_json
from trl_hybrid.runs.overwrite import MORE_SAMPLES, SAMPLES_FILE
from trl_hybrid.training.checkpoint import check_save_strategy
from trl_hybrid.verifier import MathVerifier


FIELDS = ("prompt", "solution", "samples")

PROBES = 8
"""Rows on which the saved model is compared with the trained one."""

SHORT_HELP = (
    "model_name_or_path", "policies", "dataset_name", "dataset_config", "dataset_prompt_column",
    "dataset_solution_column", "system_prompt", "max_rows", "samples", "temperatures", "num_samples",
    "sample_batch_size", "max_completion_length", "pairs_per_problem", "balance_length", "gold_as_right",
    "held_out_share", "output_dir", "overwrite_output_dir", "resume_from_checkpoint", "num_train_epochs",
    "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate", "max_length", "use_peft",
    "push_to_hub", "report_to",
)  # fmt: skip


@dataclass
class PairArguments:
    """Whose answers the reward model learns from, and in which pairs.

    Raises:
        InputError: A value is out of its range.
    """

    policies: list[str] | None = field(
        default=None,
        metadata={
            "help": "Models that answer the problems: ids or folders, adapters and checkpoints too; by default "
            "model_name_or_path. Take the policy that is to be trained, as it is now and as it may become."
        },
    )
    samples: list[str] | None = field(
        default=None,
        metadata={
            "help": "Learn from these rows files instead of sampling: samples.jsonl of other runs, or the rows.jsonl "
            "that `trl-hybrid eval` writes."
        },
    )
    temperatures: list[float] = field(
        default_factory=lambda: [0.7, 1.0], metadata={"help": "At which each policy answers."}
    )
    num_samples: int = field(
        default=6, metadata={"help": "Answers to each problem by each policy at each temperature."}
    )
    sample_batch_size: int = field(default=16, metadata={"help": "Problems answered at once."})
    max_completion_length: int = field(default=384, metadata={"help": "Tokens after which an answer is cut off."})
    pairs_per_problem: int = field(default=8, metadata={"help": "Learn from at most so many pairs a problem."})
    balance_length: bool = field(
        default=True,
        metadata={
            "help": "Leave pairs out until right answers are as often longer as shorter than the wrong ones: length "
            "alone then tells nothing."
        },
    )
    gold_as_right: bool = field(
        default=False,
        metadata={
            "help": "Where no answer is right, take the gold in a box. Only for policies whose answers are a box and "
            "nothing else; others would be told from the gold by their form."
        },
    )
    held_out_share: float = field(
        default=0.2, metadata={"help": "Share of the problems that the reward model is measured on and never learns."}
    )

    def __post_init__(self) -> None:
        """Check what would fail only after the answering."""
        rules = {
            "temperatures": (bool(self.temperatures) and min(self.temperatures) > 0, "one or more numbers above 0"),
            "num_samples": (self.num_samples >= 1, "1 or more"),
            "sample_batch_size": (self.sample_batch_size >= 1, "1 or more"),
            "max_completion_length": (self.max_completion_length >= 1, "1 or more"),
            "pairs_per_problem": (self.pairs_per_problem >= 1, "1 or more"),
            "held_out_share": (0 < self.held_out_share < 1, "between 0 and 1"),
        }
        for name, (kept, rule) in rules.items():
            if not kept:
                raise InputError(f"{name} must be {rule}; got {getattr(self, name)}.")

    def decodings(self, seed: int) -> list[Decoding]:
        """Say how each policy answers, once a temperature; no two share their random numbers."""
        return [
            Decoding(
                num_samples=self.num_samples,
                greedy=False,
                max_completion_length=self.max_completion_length,
                temperature=float(temperature),
                seed=seed + place,
            )
            for place, temperature in enumerate(self.temperatures)
        ]


class RewardModelRun(AnsweringRun):
    """A reward model from a policy's answers: `parse`, `load_tasks`, `answer`, `pairs`, `train` and `save`.

    Attributes:
        tokenizer: The reward model's, with a padding token that ends no row.
    """

    pairing: PairArguments
    tokenizer: PreTrainedTokenizerBase

    def parse(self, defaults: dict[str, Any], text: str | None = None) -> tuple[RewardConfig, ModelConfig]:
        """Read the command line, and check what can be checked before anything is loaded; see [`GRPORun.parse`]."""
        classes = {"pairs": PairArguments, "model": ModelConfig, "training": RewardConfig}
        tasks, self.pairing, model, args = self._parse(defaults, text, SHORT_HELP, tasks=TaskArguments, **classes)
        refuse_what_is_not_done(tasks, args)
        check_installed(args, model)
        name = str(model.model_name_or_path)
        check_base(name, model.model_revision, args.trust_remote_code)
        self.sources = [] if self.pairing.samples else self._sources(name, model.model_revision)
        self.renderer = self._renderer(name)
        self._take_push()
        self._check_folder(checkpoint_to_start_from)
        policy = policy_of(model, args)
        self._check_room(run_bytes(policy, args) + (policy.base_bytes if model.use_peft else 0))  # merged
        return args, model

    def _sources(self, base: str, revision: str | None) -> list[PolicySource]:
        named = self.pairing.policies
        return [find_policy(policy) for policy in named] if named else [find_policy(base, revision)]

    def _renderer(self, name: str) -> RowRenderer:
        source = Source(name, self.model.model_revision, self.args.trust_remote_code)
        config = AutoConfig.from_pretrained(name, **source.keywords()).get_text_config()
        limits = (self.args.max_length, getattr(config, "max_position_embeddings", None))
        self.tokenizer = load_tokenizer(source)
        return RowRenderer(self.tokenizer, max_length=min((x for x in limits if x is not None), default=None))

    def load_tasks(self, verifier: MathVerifier) -> list[dict[str, Any]]:
        """Load the training problems, and leave out what cannot be judged or answered.

        Returns:
            Rows of `prompt` and `solution`; none where `--samples` holds problems with answers.

        Raises:
            InputError: They cannot be loaded, or too many of them not judged.
        """
        if self.pairing.samples:
            return []
        return self._usable_tasks(self.sources[0], self.pairing.max_completion_length, verifier)

    def answer(self, problems: list[dict[str, Any]], verifier: MathVerifier) -> list[dict[str, Any]]:
        """Let each policy answer at each temperature, into a file of its own, and judge the answers.

        Returns:
            The problems with all their `samples`.

        Raises:
            InputError: The answers in `--samples` are not judged, or several processes would answer.
            SystemExit: With 130 after Ctrl-C; what is answered stays.
        """
        given = [read_rows(Path(name), FIELDS, "--samples") for name in self.pairing.samples or []]
        for name, rows in zip(self.pairing.samples or [], given, strict=True):
            check_samples(rows, name)
        with self._answering():
            batch = self.pairing.sample_batch_size
            parts = given or [self._sampled_rows(turn, problems, batch, verifier) for turn in self._turns()]
        return merge_answers(parts)

    def _turns(self) -> list[Turn]:
        decodings = self.pairing.decodings(self.args.seed)
        asked = [(source, decoding) for source in self.sources for decoding in decodings]
        return [
            Turn(
                MORE_SAMPLES.format(number) if number > 1 else SAMPLES_FILE,
                source,
                default_dtype(),
                decoding,
                f"Answers {number} of {len(asked)}: {Path(source.name).name} at {decoding.temperature:g}",
            )
            for number, (source, decoding) in enumerate(asked, start=1)
        ]

    def pairs(self, rows: Sequence[dict[str, Any]]) -> Dataset:
        """Set problems aside to measure on, and pair right with wrong answers to the others.

        Args:
            rows: Problems with judged answers.

        Returns:
            Rows of token ids for TRL's trainer.

        Raises:
            InputError: There is no pair.
        """
        wanted, seed = self.pairing, self.args.seed
        train, self.held_out = split_problems(rows, wanted.held_out_share, seed)
        groups = answer_groups(train, self.renderer, wanted.gold_as_right)
        aside = answer_groups(self.held_out, self.renderer)
        chosen = choose_pairs(groups, wanted.pairs_per_problem, seed)
        kept = balance_lengths(chosen, seed) if wanted.balance_length else chosen
        self.counts = _counts(rows, groups, self.held_out, chosen, kept)
        say(_pairs_text(self.counts))
        _check_pairs(chosen, kept, len(train))
        every = [answer.ids for group in (*aside, *groups) for answer in group]
        self.probes: list[Row] = every[:PROBES]
        self.tokenizer.pad_token = padding_token(self.tokenizer, {ids[-1] for ids in every})
        return pair_dataset(kept)

    def _step_lines(self) -> StepLines:
        return StepLines(reward_model_line, needs="loss")

    def _carry(self) -> None:
        """Write nothing: the policy's system prompt never reaches a reward model."""

    def _trained(self, trainer: Any) -> list[float]:
        return scores_in_memory(trainer, self.probes)

    def _finish(self, trainer: Any, trained: list[float]) -> None:
        if self.model.use_peft:
            merge_adapter(self.folder, self.model.dtype, self.args.trust_remote_code)
        say("Checking that the saved model is the trained one.")
        check_weights(self.folder)
        reward_model = RewardModel(
            str(self.folder),
            trust_remote_code=self.args.trust_remote_code,
            system_prompt=None,
            max_length=self.args.max_length,
        )
        half = trainer.model.dtype != torch.float32 or trainer.accelerator.mixed_precision != "no"
        check_scores_of_saved(self.folder, reward_model, self.probes, trained, 0.1 if half else 0.0)
        say(f"Saved model checked: ok\nScoring the answers to {len(self.held_out)} held-out problems.")
        groups, answers = scored_groups(self.held_out, reward_model)
        figures = ranking_figures(groups, self.args.seed)
        summary = self._summary(trainer.state.global_step, figures, len(groups), answers)
        write_json(self.folder / "summary.json", summary)
        say(f"\n{ranking_table(figures, len(groups))}\n")
        say(self._next_steps())
        if self.push:
            say(f"Pushed: {push_run(self.folder, token=self.token)}")

    def _summary(self, steps: int, figures: dict[str, Any], problems: int, answers: int) -> dict[str, Any]:
        name = str(self.model.model_name_or_path)
        return {
            "held_out": {"problems": problems, "answers": answers, "figures": figures},
            "pairs": self.counts,
            "model": relative_path(str(self.folder)),
            "base_model": relative_path(name),
            "steps": steps,
            "seconds": round(time.time() - self.started, 1),
            "versions": package_versions(),
            "commits": {"model": commit_of(name, self.model.model_revision)},
            "settings": self.started_with,
        }

    def _next_steps(self) -> str:
        name = relative_path(str(self.folder))
        return (
            f"Train with it:     python recipes/tinyllama_grpo.py --config CONFIG --reward_model_name_or_path {name}\n"
            f"Choose by it:      trl-hybrid eval --model POLICY --reward_model {name}\n"
            f"Share it:          trl-hybrid push {name} --hub_model_id YOUR_NAME/MODEL\n"
            f"Total time:        {duration(time.time() - self.started)}"
        )


def check_base(name: str, revision: str | None, trust_remote_code: bool) -> None:
    """Look at what the reward model starts from: a language model, or a reward model that learns on.

    Raises:
        InputError: It is neither, or its files are not whole.
    """
    kinds = _architectures(name, revision, trust_remote_code)
    if any(kind.endswith("ForSequenceClassification") for kind in kinds):
        check_reward_model(name, revision, trust_remote_code)
    else:
        check_model(name, "base of the reward model", revision, trust_remote_code)


def _architectures(name: str, revision: str | None, trust_remote_code: bool) -> list[str]:
    try:
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError):
        return []  # `check_model` says what is wrong
    return config.architectures or []


def check_scores_of_saved(
    folder: Path, reward_model: RewardModel, rows: Sequence[Row], trained: Sequence[float], tolerance: float
) -> None:
    """Compare the scores of what was saved with those of the model in memory.

    Args:
        folder: Where it was saved.
        reward_model: What was loaded from there.
        rows: Token ids.
        trained: Their scores in memory.
        tolerance: See [`~trl_hybrid.reward_model.forwards.agree`]; that of the loaded model's number type at least.

    Raises:
        InputError: They differ, or are not finite.
    """
    saved = [reward_model.backend.score([row])[0] for row in rows]
    if all(map(math.isfinite, trained)) and agree(saved, trained, max(tolerance, reward_model.tolerance)):
        return
    raise InputError(
        f"The model saved in {str(folder)!r} must score as the trained one, but gives {saved[:3]} and the trained one "
        f"{list(trained[:3])}. The checkpoints beside it are as they were: go on from the newest by "
        "--resume_from_checkpoint latest, with a lower learning_rate where the scores are not finite."
    )


def refuse_what_is_not_done(tasks: TaskArguments, args: RewardConfig) -> None:
    """Stop at settings that this recipe would pass over.

    Raises:
        InputError: One of them is given.
    """
    check_save_strategy(args)
    given = {"datasets": tasks.datasets, "dataset_streaming": tasks.dataset_streaming or tasks.streaming}
    for name in (name for name, value in given.items() if value):
        raise InputError(
            f"{name} is for recipes/tinyllama_grpo.py only: a reward model is trained on the answers to one data set, "
            f"whole. Leave {name} out; answers to several are given by --samples FILE FILE."
        )


def _counts(
    rows: Sequence[Any],
    groups: Sequence[Sequence[Answer]],
    held_out: Sequence[Any],
    chosen: Sequence[Pair],
    kept: Sequence[Pair],
) -> dict[str, int]:
    return {
        "problems": len(rows),
        "held_out": len(held_out),
        "answers": sum(map(len, groups)),
        "with_both": sum(len({answer.right for answer in group}) == 2 for group in groups),
        "pairs": len(kept),
        "left_out_by_length": len(chosen) - len(kept),
    }


def _pairs_text(counts: dict[str, int]) -> str:
    learned = counts["problems"] - counts["held_out"]
    return (
        f"What is learned: {counts['pairs']} pairs of a right and a wrong answer, from {counts['answers']} distinct "
        f"answers to {learned} problems, {counts['with_both']} of which have both; {counts['left_out_by_length']} "
        f"pairs are left out so that length tells nothing. Held out: {counts['held_out']} problems."
    )


def _check_pairs(chosen: Sequence[Pair], kept: Sequence[Pair], problems: int) -> None:
    if not chosen:
        raise InputError(
            f"There is nothing to learn from: of {problems} problems none has both a right and a wrong answer. Raise "
            "num_samples, or take easier or harder problems, or another policy; where answers are nothing but a box, "
            "add --gold_as_right true."
        )
    if not kept:
        raise InputError(
            f"In all of {len(chosen)} pairs the right answer is on the same side in length: length alone would be "
            "learned. Take more problems, or other temperatures or policies; to learn from them all the same, add "
            "--balance_length false."
        )
