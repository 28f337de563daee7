"""What `recipes/train_reward_model.py` does around its verifier and its trainer."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoConfig, PreTrainedTokenizerBase
from trl import ModelConfig, RewardConfig

from trl_hybrid.errors import InputError
from trl_hybrid.evaluation.cold_start import check_samples
from trl_hybrid.evaluation.pairs import merge_answers
from trl_hybrid.evaluation.ranking import ranking_figures
from trl_hybrid.evaluation.read_rows import read_rows
from trl_hybrid.hub.origin import commit_of
from trl_hybrid.hub.reward_model_card import make_reward_model_card
from trl_hybrid.hub.saved import check_weights
from trl_hybrid.hub.upload import push_run
from trl_hybrid.memory.estimates import policy_of
from trl_hybrid.models.check import check_model, check_reward_model
from trl_hybrid.policy.source import PolicySource, default_dtype, find_policy
from trl_hybrid.recipe.answer_pairs import Lesson, make_lesson, pair_dataset, scored_groups
from trl_hybrid.recipe.answering import AnsweringRun, Turn, checkpoint_to_start_from
from trl_hybrid.recipe.asked_for import check_installed
from trl_hybrid.recipe.disk import run_bytes
from trl_hybrid.recipe.options import TaskArguments
from trl_hybrid.recipe.pair_options import SHORT_HELP, PairArguments
from trl_hybrid.recipe.reward_trainer import check_scores_of_saved, merge_adapter, padding_token, scores_in_memory
from trl_hybrid.recipe.say import say
from trl_hybrid.report import StepLines, ranking_table, reward_model_line
from trl_hybrid.report.headline import duration
from trl_hybrid.reward_model import RewardModel
from trl_hybrid.reward_model.loading import Source, load_tokenizer
from trl_hybrid.reward_model.prompts import RowRenderer
from trl_hybrid.runs.folder import package_versions, relative_path, write_json
from trl_hybrid.runs.overwrite import MORE_SAMPLES, SAMPLES_FILE
from trl_hybrid.runs.record import read_record
from trl_hybrid.training.checkpoint import check_save_strategy
from trl_hybrid.verifier import MathVerifier


FIELDS = ("prompt", "solution", "samples")

PROBES = 8
"""Rows on which the saved model is compared with the trained one."""


class RewardModelRun(AnsweringRun):
    """A reward model from a policy's answers: `parse`, `load_tasks`, `answer`, `pairs`, `train` and `save`.

    Attributes:
        tokenizer: The reward model's, with a padding token that ends no row.
    """

    pairing: PairArguments
    lesson: Lesson
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
        asked = [(source, heat) for source in self.sources for heat in self.pairing.temperatures]
        return [
            Turn(
                MORE_SAMPLES.format(number) if number > 1 else SAMPLES_FILE,
                source,
                default_dtype(),
                # Two turns with the same random numbers would give the same answers twice.
                self.pairing.decoding(heat, self.args.seed + number - 1),
                f"Answers {number} of {len(asked)}: {Path(source.name).name} at {heat:g}",
            )
            for number, (source, heat) in enumerate(asked, start=1)
        ]

    def pairs(self, rows: Sequence[dict[str, Any]]) -> Dataset:
        """Set problems aside to measure on, and pair right with wrong answers to the others; see [`make_lesson`].

        Args:
            rows: Problems with judged answers.

        Returns:
            Rows of token ids for TRL's trainer.

        Raises:
            InputError: There is no pair.
        """
        self.lesson = make_lesson(rows, self.renderer, self.pairing, self.args.seed)
        say(self.lesson.text())
        self.tokenizer.pad_token = padding_token(self.tokenizer, {row[-1] for row in self.lesson.rows})
        return pair_dataset(self.lesson.pairs)

    def _step_lines(self) -> StepLines:
        return StepLines(reward_model_line, needs="loss")

    def _carry(self) -> None:
        """Write nothing: the policy's system prompt never reaches a reward model."""

    def _trained(self, trainer: Any) -> list[float]:
        # Merged, an adapter of a quantized base is on weights that are not.
        quantized = getattr(trainer.model, "is_quantized", False)
        return [] if quantized else scores_in_memory(trainer, self.lesson.rows[:PROBES])

    def _finish(self, trainer: Any, trained: list[float]) -> None:
        if self.model.use_peft:
            merge_adapter(self.folder, self.model.dtype, self.args.trust_remote_code)
        say("Checking that the saved model is the trained one.")
        check_weights(self.folder)
        reward_model = RewardModel(
            str(self.folder),
            trust_remote_code=self.args.trust_remote_code,
            dtype=trainer.model.dtype,  # bfloat16, a GPU's default, would make other scores of them
            system_prompt=None,
            max_length=self.args.max_length,
        )
        check_scores_of_saved(self.folder, reward_model, self.lesson.rows, trained)
        say(f"Saved model checked: ok\nScoring the answers to {len(self.lesson.held_out)} held-out problems.")
        groups, answers = scored_groups(self.lesson.held_out, reward_model)
        figures = ranking_figures(groups, self.args.seed)
        summary = self._summary(trainer.state.global_step, figures, len(groups), answers)
        write_json(self.folder / "summary.json", summary)
        name = relative_path(str(self.folder))
        make_reward_model_card(read_record(self.folder), name).save(self.folder / "README.md")
        say(f"\n{ranking_table(figures, len(groups))}\n")
        say(self._next_steps())
        if self.push:
            say(f"Pushed: {push_run(self.folder, token=self.token)}")

    def _summary(self, steps: int, figures: dict[str, Any], problems: int, answers: int) -> dict[str, Any]:
        name = str(self.model.model_name_or_path)
        return {
            "held_out": {"problems": problems, "answers": answers, "figures": figures},
            "pairs": self.lesson.counts,
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
