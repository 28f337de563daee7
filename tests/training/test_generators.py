"""The rewards do not depend on what generated: transformers, or vLLM through TRL's own options."""

import ast
from pathlib import Path

import pytest
import torch
import yaml
from datasets import Dataset
from trl.trainer import grpo_trainer

from trl_hybrid import HybridGRPOConfig, HybridGRPOTrainer, MathVerifier, RewardModel


PACKAGE = Path("trl_hybrid")

MAY_ASK = {
    "memory/estimates.py": "how much of a GPU a colocated vLLM takes",
    "commands/plan_estimator.py": "the same, for `trl-hybrid plan`",
    "recipe/asked_for.py": "whether what a run asks for is installed",
    "checks/packages.py": "whether it is installed, for `trl-hybrid check`",
    "commands/eval.py": "which one `trl-hybrid eval` lets answer",
    "commands/eval_loading.py": "the same, when it loads it",
    "commands/eval_settings.py": "the same, for its options",
    "policy/vllm_sampler.py": "the answers of `trl-hybrid eval`",
    "recipe/splits.py": "how long a prompt may be",
    "training/leaving.py": "whether an engine must end before the process group",
}
"""Modules that may ask which generator is used, and why. None is on the way from a completion to its reward."""

SERVES_REWARD_MODEL = {
    "reward_model/serve_commands.py",
    "reward_model/server.py",
    "reward_model/server_answers.py",
    "commands/serve_command.py",
    "commands/plan.py",
    "recipe/options.py",
}
"""Modules that speak of vLLM as a server of the reward model, which generates nothing."""


def asks_for_a_generator(file):
    """Whether a name, attribute, argument, import or string other than a docstring of a module speaks of vLLM."""
    tree = ast.parse(file.read_text())
    expressions = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and (not isinstance(node.value, str) or node in expressions):
            continue
        said = [getattr(node, part, None) for part in ("id", "attr", "arg", "name", "module", "value")]
        if any(isinstance(word, str) and "vllm" in word.lower() for word in said):
            return True
    return False


def test_only_named_modules_ask_which_generator_is_used():
    asking = {str(file.relative_to(PACKAGE)) for file in PACKAGE.rglob("*.py") if asks_for_a_generator(file)}
    assert asking == set(MAY_ASK) | SERVES_REWARD_MODEL


@pytest.mark.parametrize(
    ("code", "asks"),
    [
        ("args.use_vllm", True),
        ("getattr(args, 'use_' + 'vllm')", True),
        ("import vllm", True),
        ("from vllm import LLM", True),
        ("f(vllm_mode=1)", True),
        ('"""Works with vLLM too."""\nx = 1', False),
        ("args.max_steps  # not vllm", False),
    ],
)
def test_the_search_finds_what_it_is_for(tmp_path, code, asks):
    (tmp_path / "module.py").write_text(code)
    assert asks_for_a_generator(tmp_path / "module.py") is asks


@pytest.fixture(scope="module")
def judges():
    with MathVerifier(num_workers=1) as verifier:
        yield {"verifier": verifier, "reward_model": RewardModel("data/embedded_reward_model")}


class Recorder(HybridGRPOTrainer):
    """Keeps what was generated and what was paid for it."""

    def _generate_single_turn(self, *args, **kwargs):
        self.completion_ids, logprobs = super()._generate_single_turn(*args, **kwargs)
        return self.completion_ids, logprobs

    def _calculate_rewards(self, *args):
        self.rewards = super()._calculate_rewards(*args)
        return self.rewards

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        self.advantages = output["advantages"]
        return output


class Engine:
    """Stands in for TRL's VLLMGeneration: answers in its form what transformers generated before."""

    def __init__(self, completion_ids):
        self.completion_ids = completion_ids
        self.synchronized = 0

    def __call__(self, **settings):
        self.settings = settings
        return self

    def sync_weights(self):
        self.synchronized += 1

    def generate(self, prompts, images, num_generations, profiler):
        # One log-probability for each token, as with `logprobs=0`.
        logprobs = [[[-0.5] for _ in ids] for ids in self.completion_ids]
        return prompts, self.completion_ids, logprobs, [[[token] for token in ids] for ids in self.completion_ids]


def trained(folder, judges, **changes):
    settings = {
        "num_generations": 4, "per_device_train_batch_size": 8, "max_completion_length": 40, "max_steps": 1,
        "gradient_checkpointing": False, "report_to": "none", "save_strategy": "no", "use_cpu": True,
        "disable_tqdm": True, "seed": 3,
    }  # fmt: skip
    questions = [(17, 25), (48, 36)]
    trainer = Recorder(
        "data/embedded_policy",
        args=HybridGRPOConfig(str(folder), **{**settings, **changes}),
        train_dataset=Dataset.from_dict(
            {
                "prompt": [[{"role": "user", "content": f"{a} + {b} = ?"}] for a, b in questions],
                "solution": [str(a + b) for a, b in questions],
            }
        ),
        **judges,
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("correction", [True, False])
def test_the_same_completions_are_paid_the_same(tmp_path, judges, monkeypatch, correction):
    plain = trained(tmp_path / "transformers", judges)
    engine = Engine(plain.completion_ids)
    monkeypatch.setattr(grpo_trainer, "VLLMGeneration", engine)
    fast = trained(
        tmp_path / "vllm", judges, use_vllm=True, vllm_mode="colocate", vllm_importance_sampling_correction=correction
    )
    assert engine.synchronized == 1
    assert engine.settings["mode"] == "colocate"
    assert len({tuple(ids) for ids in plain.completion_ids}) > 2
    assert plain.rewards.shape == (8, 3)
    assert plain.rewards[:, 2].unique().numel() > 2
    assert torch.equal(fast.rewards, plain.rewards)
    assert torch.equal(fast.advantages, plain.advantages)


@pytest.mark.parametrize("mode", ["colocate", "server"])
def test_the_vllm_configs_are_the_recipe_s_and_trl_s_options(mode):
    plain = yaml.safe_load(Path("recipes/configs/tinyllama_grpo.yaml").read_text())
    fast = yaml.safe_load(Path(f"recipes/configs/tinyllama_grpo_vllm_{mode}.yaml").read_text())
    own = {key: value for key, value in fast.items() if "vllm" in key}
    assert {key: value for key, value in fast.items() if key not in {*own, "run_name"}} == {
        key: value for key, value in plain.items() if key != "run_name"
    }
    assert own.pop("use_vllm") is True
    assert own["vllm_mode"] == mode
    known = HybridGRPOConfig("unused", use_cpu=True, use_vllm=True, **own)
    assert {key: getattr(known, key) for key in own} == own
