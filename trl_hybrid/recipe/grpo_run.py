"""What the GRPO recipe does around its judges, its data and its trainer."""

from typing import Any, ClassVar

from accelerate import PartialState
from datasets import Dataset, IterableDataset
from trl import ModelConfig

from trl_hybrid.errors import plain_errors
from trl_hybrid.hub.upload import push_run
from trl_hybrid.memory.estimates import policy_of, reserved_bytes
from trl_hybrid.models.check import check_model, check_reward_model
from trl_hybrid.recipe.asked_for import check_asked_for
from trl_hybrid.recipe.closing import finish
from trl_hybrid.recipe.disk import check_room, run_bytes
from trl_hybrid.recipe.endings import plain_ends
from trl_hybrid.recipe.options import CPU_DEFAULTS, JudgeArguments, TaskArguments, parse_arguments
from trl_hybrid.recipe.outlook import outlook, work_of
from trl_hybrid.recipe.preflight import check_judges, check_push, check_run_length
from trl_hybrid.recipe.run import Run
from trl_hybrid.recipe.say import say
from trl_hybrid.recipe.splits import checked_splits
from trl_hybrid.report.terminal import StepLines
from trl_hybrid.reward_model import RewardModel
from trl_hybrid.reward_model.footprint import Need
from trl_hybrid.training.checkpoint import check_save_strategy
from trl_hybrid.training.config import HybridGRPOConfig
from trl_hybrid.training.held_out_accuracy import ANSWERS, HeldOutAccuracy
from trl_hybrid.training.reward_columns import check_aggregation
from trl_hybrid.training.stop_signals import StopSignals
from trl_hybrid.verifier import MathVerifier


class GRPORun(Run):
    """One run of the GRPO recipe.

    Attributes:
        judges: The verifier's and the reward model's settings.
        reserved_memory: What training will take of the GPU, for the reward model to leave.
    """

    GROUPS: ClassVar = {"tasks": "tasks", "judges": "judges", "model": "model", "training": "args"}
    args: HybridGRPOConfig
    judges: JudgeArguments

    def _read_settings(self) -> None:
        self.tasks, self.judges, self.args, self.model = parse_arguments(
            (TaskArguments, JudgeArguments, HybridGRPOConfig, ModelConfig),
            self.defaults,
            cpu_defaults=CPU_DEFAULTS,
            **self.help,
        )
        args, model, judges = self.args, self.model, self.judges
        check_aggregation(args)
        check_save_strategy(args)
        check_asked_for(args, model, judges)
        check_model(model.model_name_or_path, "policy", model.model_revision, args.trust_remote_code)
        name, revision = judges.reward_model_name_or_path, judges.reward_model_revision
        check_reward_model(name, revision, judges.reward_model_trust_remote_code)
        self._push, self._token = args.push_to_hub, args.hub_token
        if self._push:
            check_push(args)
        # TRL would push at each save, unchecked, with the completions, and keep the token in training_args.bin.
        args.push_to_hub, args.hub_token = False, None
        self._find_folder()

    def load_tasks(self, verifier: MathVerifier) -> Dataset | IterableDataset:
        """Load the problems, leave out what cannot be used, and say what the run will do with the rest.

        Args:
            verifier: Must be able to judge every gold answer; it measures the held-out problems too.

        Returns:
            The problems to train on; those to measure on are kept for `train`.

        Raises:
            InputError: As for `checked_splits`, `check_run_length` and `check_room`.
        """
        args, model = self.args, self.model
        self._verifier = verifier
        self._train_tasks, self._test_tasks = checked_splits(self.tasks, args, model, verifier, self.checkpoint)
        rows = len(self._train_tasks) if isinstance(self._train_tasks, Dataset) else None
        check_run_length(rows, (args.generation_batch_size or 0) // (args.num_generations or 1), args.max_steps)
        processes = PartialState().num_processes
        work = work_of(args, rows, processes)
        check_room(self.place, run_bytes(policy_of(model, args), args, work.steps), self.checkpoint is not None)
        say(outlook(work, args, model, len(self._test_tasks or ()), ANSWERS))
        self.reserved_memory: Need = reserved_bytes(model, args, self._test_tasks is not None, processes)
        return self._train_tasks

    def prepare(self, reward_model: RewardModel) -> None:
        """Try both judges on known answers, and choose the run's folder.

        Raises:
            InputError: As for `check_judges` and `prepare_folder`.
        """
        check_judges(self._verifier, reward_model, list(self._train_tasks.take(10)))
        self._make_folder()

    def train(self, trainer: Any) -> None:
        """Train, and measure held-out accuracy before, after, and in between where that is asked for."""
        stop, measuring = StopSignals(trainer), []
        if self._test_tasks is not None:
            every = self.tasks.eval_accuracy_steps
            self._held_out = HeldOutAccuracy(
                trainer, self._test_tasks, self._verifier, self.folder, self.checkpoint, every=every, stop=stop
            )
            measuring = [self._held_out]
        self._train(trainer, StepLines(), self.tasks.overwrite_output_dir, stop, *measuring)

    _held_out: HeldOutAccuracy | None = None

    def save(self, trainer: Any) -> None:
        """Save the model, check what was saved, show what came of the run, and push it where that was asked for."""
        trained = self._save_model(trainer)
        self._verifier.close()
        # A process that leaves while another one still talks to it takes that one down.
        trainer.accelerator.wait_for_everyone()
        trainer.end()
        if trainer.is_world_process_zero():
            with plain_errors(), plain_ends(self.folder, trainer):
                finish(self.folder, trainer, self._held_out, self.recorded, trained, self.started)
                if self._push:
                    say(f"Pushed: {push_run(self.folder, token=self._token)}")
