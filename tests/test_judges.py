"""Judges of other people: what is asked of them, and a run that has two."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from datasets import Dataset

from trl_hybrid import HybridGRPOConfig, HybridGRPOTrainer, MathVerifier, RewardModel, Scorer, Verifier
from trl_hybrid.judges import JudgeNames


def test_the_packages_own_judges_are_such():
    with MathVerifier(num_workers=1) as verifier:
        assert isinstance(verifier, Verifier)
        assert not isinstance(verifier, Scorer)
        reward_model = RewardModel("data/embedded_reward_model")
        assert isinstance(reward_model, Scorer)
        assert JudgeNames() == JudgeNames(reward_model.__name__, verifier.__name__)


class Half(Verifier):
    """What a subclass need not write, it inherits."""

    __name__ = "half"

    def __call__(self, prompts, completions, **kwargs):
        return [1.0, 0.0] * (len(completions) // 2)


class Remembers(Scorer):
    """Scores count up from call to call, also over a stop."""

    __name__ = "remembers"
    calls = 0

    def __call__(self, prompts, completions, **kwargs):
        self.calls += 1
        return [float(self.calls * place) for place in range(len(completions))]

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


def make_trainer(folder, verifier, reward_model, **changes):
    settings = {
        "num_generations": 4, "per_device_train_batch_size": 4, "max_completion_length": 4, "max_steps": 1,
        "learning_rate": 1e-3, "logging_steps": 1, "gradient_checkpointing": False, "report_to": "none",
        "use_cpu": True, "disable_tqdm": True, "save_steps": 1,
    }  # fmt: skip
    return HybridGRPOTrainer(
        "data/embedded_policy",
        args=HybridGRPOConfig(str(folder), **{**settings, **changes}),
        train_dataset=Dataset.from_dict({"prompt": [[{"role": "user", "content": "1 + 1 = ?"}]], "solution": ["2"]}),
        verifier=verifier,
        reward_model=reward_model,
    )


def test_what_a_judge_need_not_write_it_inherits_and_what_it_remembers_goes_on(tmp_path):
    assert isinstance(Half(), Verifier)
    assert (Half().correct_reward, Half().prefetch([], [])) == (1.0, None)
    trainer = make_trainer(tmp_path, Half(), Remembers())
    trainer.train()
    # Right 0 and 2, wrong 1 and 3: each its band's ends.
    assert list(trainer._logs["rewards"]["hybrid_reward"]) == pytest.approx([0.9, -0.1, 1.1, 0.1], abs=1e-5)
    resumed = make_trainer(tmp_path, Half(), Remembers(), max_steps=2)
    resumed.train(resume_from_checkpoint=True)
    assert list(resumed._logs["rewards"]["remembers"]) == [0.0, 2.0, 4.0, 6.0]


def test_a_plain_function_is_a_judge_that_remembers_nothing(tmp_path):
    def even(completions, **kwargs):
        return [1.0, None, 0.0, 0.0]

    def length(completions, **kwargs):
        return [float("nan"), 1.0, 2.0, 3.0]

    trainer = make_trainer(tmp_path, even, length)
    trainer.train()
    assert trainer.judge_names == JudgeNames("length", "even")
    logged = next(row for row in trainer.state.log_history if "reward" in row)
    assert (logged["judges/verifier/even"], logged["judges/reward_model/length"]) == (0.75, 0.75)
    assert not list(tmp_path.glob("checkpoint-1/reward_model_state_*"))


def test_the_script_in_the_documentation_trains_with_its_judges_and_reports_by_their_names(
    tmp_path, monkeypatch, capsys
):
    (script,) = re.findall(r"```python\n(.*?)```", Path("docs/judges.md").read_text(), re.DOTALL)
    assert '"runs/own_judges"' in script
    exec(compile(script.replace("runs/own_judges", str(tmp_path)), "docs/judges.md", "exec"), {"__name__": "script"})
    shown = "".join(capsys.readouterr())
    assert len(re.findall(r"step +\d \| right +\d+ % \| brevity +-\d+\.\d\d \| hybrid reward", shown)) == 3

    rows = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert JudgeNames.among(rows[0]) == JudgeNames("brevity", "last_digit")
    assert rows[0]["rewards/last_digit/mean"] == pytest.approx(rows[0]["hybrid/pass_rate"])
    table = pd.concat(map(pd.read_parquet, sorted(tmp_path.glob("completions/*.parquet"))))
    assert len(table) == 96
    assert (table["last_digit"] == table["verdict"]).all()
    assert (table["brevity"] == table["score"]).all()
    assert set(table["verdict"]) == {0.0, 1.0}
    assert ((table["hybrid_reward"] > 0.5) == (table["verdict"] == 1.0)).all()

    page = (tmp_path / "report.html").read_text()
    assert "last_digit alone" in page
    assert "By brevity. Should wrong answers climb" in page
    assert not re.search("math_verifier|reward_model", page)


@pytest.mark.parametrize("correct", [1.0, 5.0])
def test_a_right_answer_is_what_gets_the_verifiers_own_reward(tmp_path, correct):
    class Own(Half):
        correct_reward = correct

        def __call__(self, prompts, completions, **kwargs):
            return [correct, correct / 2, 0.0, None]

    trainer = make_trainer(tmp_path, Own(), Remembers())
    trainer.train()
    verdicts = torch.tensor(list(trainer._logs["extra"]["verdict"]))
    assert verdicts[:3].tolist() == [1.0, 0.0, 0.0]
    assert verdicts[3].isnan()
