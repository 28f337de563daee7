"""What `recipes/tinyllama_grpo.py` does around its judges and its trainer."""

from typing import Any

from accelerate import PartialState
from datasets import Dataset, IterableDataset
from trl import ModelConfig

from trl_hybrid.hub.saved import Trained
from trl_hybrid.hub.upload import push_run
from trl_hybrid.memory.estimates import policy_of, reserved_bytes
from trl_hybrid.models.check import check_model, check_reward_model
from trl_hybrid.recipe.asked_for import check_installed, check_sampling
from trl_hybrid.recipe.closing import finish
from trl_hybrid.recipe.disk import run_bytes
from trl_hybrid.recipe.options import JudgeArguments, TaskArguments
from trl_hybrid.recipe.outlook import outlook, work_of
from trl_hybrid.recipe.parsing import SHORT_HELP
from trl_hybrid.recipe.preflight import check_judges, check_run_length
from trl_hybrid.recipe.run import RecipeRun
from trl_hybrid.recipe.say import say
from trl_hybrid.recipe.splits import checked_splits
from trl_hybrid.reward_model import RewardModel
from trl_hybrid.reward_model.footprint import Need
from trl_hybrid.training.checkpoint import check_save_strategy
from trl_hybrid.training.config import HybridGRPOConfig
from trl_hybrid.training.held_out_accuracy import ANSWERS, HeldOutAccuracy
from trl_hybrid.training.reward_columns import check_aggregation
from trl_hybrid.training.stop_signals import StopSignals
from trl_hybrid.verifier import MathVerifier


class GRPORun(RecipeRun):
    """A run of GRPO: `parse`, `load_tasks`, `check_judges`, `train` and `save`, in this order."""

    verifier: MathVerifier
    held_out: HeldOutAccuracy | None = None

    def parse(
        self, defaults: dict[str, Any], text: str | None = None
    ) -> tuple[JudgeArguments, HybridGRPOConfig, ModelConfig]:
        """Read the command line, and check all that can be checked before anything is loaded.

        Args:
            defaults: The recipe's own values in place of the options' defaults.
            text: For `--help`: what the recipe does, an empty line, and examples.

        Raises:
            InputError: Something that was asked for cannot be done.
        """
        classes = {"judges": JudgeArguments, "model": ModelConfig, "training": HybridGRPOConfig}
        _, judges, model, args = self._parse(defaults, text, SHORT_HELP, tasks=TaskArguments, **classes)
        check_aggregation(args)
        check_save_strategy(args)
        check_sampling(args)
        check_installed(args, model, judges)
        check_models(judges, args, model)
        self._take_push()
        self._check_folder()
        return judges, args, model

    def load_tasks(self, verifier: MathVerifier) -> tuple[Dataset | IterableDataset, Dataset | None]:
        """Load the problems, leave out what cannot be judged or answered, and say what the run is going to do.

        Args:
            verifier: Must be able to judge the gold answers; it measures held-out accuracy too.

        Returns:
            The problems to train on, and those to measure on, `None` where there are none.

        Raises:
            InputError: There are too few problems, or is too little room on the disk.
        """
        args, model, processes = self.args, self.model, PartialState().num_processes
        self.verifier = verifier
        train, test = checked_splits(self.tasks, args, model, verifier, self.checkpoint)
        self.train_tasks, self.test_tasks = train, test
        rows = len(train) if isinstance(train, Dataset) else None
        check_run_length(rows, (args.generation_batch_size or 0) // (args.num_generations or 1), args.max_steps)
        work = work_of(args, rows, processes)
        self._check_room(run_bytes(policy_of(model, args), args, work.steps))
        say(outlook(work, args, model, len(test or ()), ANSWERS))
        return train, test

    def reserved_memory(self) -> Need:
        """Return what training will take of the GPU, for the reward model to leave free."""
        measures = self.test_tasks is not None
        return reserved_bytes(self.model, self.args, measures, PartialState().num_processes)

    def check_judges(self, verifier: MathVerifier, reward_model: RewardModel) -> None:
        """Let both judges work once on known answers, and choose the run's folder, which `args` then names."""
        check_judges(verifier, reward_model, list(self.train_tasks.take(10)))
        self._open_folder()

    def _measure(self, trainer: Any, stop: StopSignals) -> None:
        if self.test_tasks is None:
            return
        every = self.tasks.eval_accuracy_steps
        self.held_out = HeldOutAccuracy(
            trainer, self.test_tasks, self.verifier, self.folder, self.checkpoint, every=every, stop=stop
        )
        trainer.add_callback(self.held_out)

    def _finish(self, trainer: Any, trained: Trained) -> None:
        finish(self.folder, trainer, self.held_out, self.started_with, trained, self.started)
        if self.push:
            say(f"Pushed: {push_run(self.folder, token=self.token)}")


def check_models(judges: JudgeArguments, args: HybridGRPOConfig, model: ModelConfig) -> None:
    """Look at both models' files before anything else, so that a wrong id or a broken copy costs seconds."""
    check_model(model.model_name_or_path, "policy", model.model_revision, args.trust_remote_code)
    check_reward_model(
        judges.reward_model_name_or_path,
        judges.reward_model_revision,
        judges.reward_model_trust_remote_code,
        served=judges.reward_model_server_url is not None,
    )
