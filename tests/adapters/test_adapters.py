"""The adapters as each package finds and calls them.

Where a package is not installed, what it does is done here as it stands in the version that the adapter names; the
tests of `test_packages.py` ask the packages themselves.
"""

import asyncio
import importlib.util
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from trl_hybrid import adapters
from trl_hybrid.adapters import judge, judge_by_any, judge_in_thread, lm_eval_metric, verifiers_reward, verl_reward
from trl_hybrid.errors import InputError


FOLDER = Path("trl_hybrid/adapters")
ENDLESS = r"\boxed{\binom{9999}{5000}^{20000}}"
"""Takes the verifier's whole deadline of 3 s."""


def load_file(name):
    """Load an adapter by its path, as a module of another name."""
    spec = importlib.util.spec_from_file_location("loaded_by_path", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_adapter_is_read_at_a_glance():
    files = [file for file in FOLDER.glob("*.py") if not file.name.startswith("__")]
    assert len(files) == 7
    assert all(len(file.read_text().splitlines()) <= 40 for file in files)


def test_no_adapter_hides_a_package_where_its_folder_comes_first():
    named = {"verl", "openrlhf", "swift", "verifiers", "lm_eval", "inspect_ai", "lighteval"}
    assert not named & {file.stem for file in FOLDER.glob("*.py")}


def test_the_folder_is_printed():
    shown = subprocess.run([sys.executable, "-m", "trl_hybrid.adapters"], capture_output=True, text=True, check=True)
    assert Path(shown.stdout.strip()) == FOLDER.resolve()


class TestJudge:
    def test_any_of_several_references_will_do(self):
        assert judge_by_any("It is 5.", ["4", "5"]).correct is True
        assert judge_by_any("It is 6.", ["", "5"]).correct is False
        assert judge_by_any("It is 6.", ["", "\\undefined{"]).correct is None
        assert judge_by_any("It is 6.", []).correct is None

    def test_a_list_is_one_reference_that_demands_all_its_values(self):
        assert judge("\\boxed{5, 4}", ["4", "5"]).correct is True
        assert judge("It is 5.", ["4", "5"]).correct is False
        assert judge("It is 5.", []).reason == "unjudgeable"

    @pytest.mark.parametrize(
        "gold", [np.int64(4), np.float32(4), np.array(4), np.array([4]), Decimal(4), [np.int64(4)]]
    )
    def test_numbers_of_all_kinds_are_references(self, gold):
        assert judge("It is 4.", gold).correct is True
        assert judge("It is 5.", gold).correct is False

    def test_a_completion_that_is_missing_is_no_answer(self):
        assert judge(None, "4").reason == "no_answer"

    def test_what_was_cut_off_has_no_last_number(self):
        assert judge("So we get 42", "42").correct is True
        assert judge("So we get 42", "42", None, True).correct is False

    def test_the_event_loop_goes_on(self):
        gaps = []

        async def heartbeat():
            while True:
                before = time.perf_counter()
                await asyncio.sleep(0.01)
                gaps.append(time.perf_counter() - before)

        async def both():
            beating = asyncio.create_task(heartbeat())
            start = time.perf_counter()
            verdict = await judge_in_thread(ENDLESS, "7")
            beating.cancel()
            return verdict, time.perf_counter() - start

        verdict, seconds = asyncio.run(both())
        assert verdict.reason == "timeout"
        assert max(gaps) < seconds / 2


class TestVerl:
    """verl 0.9.1: `NaiveRewardManager.run_single` passes keywords and takes a dict with `score`."""

    def call(self, function, answer, truth):
        extra = {"num_turns": 2, "rollout_reward_scores": {}}
        return function(data_source="gsm8k", solution_str=answer, ground_truth=truth, extra_info=extra)

    @pytest.mark.parametrize("load", [lambda: verl_reward, lambda: load_file("verl_reward")])
    def test_right_wrong_and_unjudgeable(self, load):
        function = load().compute_score
        assert self.call(function, "It is 4.", "4") == {"score": 1.0, "acc": 1.0, "judged": 1.0, "pred": "4"}
        assert self.call(function, "It is 5.", "4") == {"score": 0.0, "acc": 0.0, "judged": 1.0, "pred": "5"}
        unjudgeable = self.call(function, "It is 5.", "")
        assert unjudgeable == {"score": 0.0, "acc": 0.0, "judged": 0.0, "pred": "5"}

    def test_the_problem_in_another_form_is_not_paid_where_the_problem_is_known(self):
        problem = "She sold 48 clips in April and 24 in May. How many?"
        message = [{"role": "user", "content": problem}]
        known = {"question": problem}, {"problem": problem}, {"question": None, "prompt": message}
        for extra, paid in [*((fields, 0.0) for fields in known), ({"question": {}}, 1.0), (None, 1.0)]:
            found = verl_reward.compute_score("gsm8k", r"\boxed{48+24}", "72", extra)
            assert (found["score"], found["judged"]) == (paid, 1.0)


class TestOpenRlhf:
    """OpenRLHF 0.11.2: `SingleTurnAgentExecutor` loads the file, and passes lists of one by place."""

    def test_right_wrong_and_unjudgeable(self):
        reward_func = load_file("openrlhf_reward").reward_func
        prompt = "<|im_start|>user\nIs it 5?<|im_end|>\n<|im_start|>assistant\n"
        for answer, label, paid, judged in [("4", "4", 1.0, 1.0), ("5", "4", 0.0, 1.0), ("5", None, 0.0, 0.0)]:
            info = reward_func([f"{prompt}It is {answer}.<|im_end|>"], [prompt], [label])
            assert torch.tensor([info["rewards"]]).tolist() == torch.tensor([info["scores"]]).tolist() == [paid]
            assert info["extra_logs"]["judged"].flatten()[0].item() == judged

    def test_a_wrong_environment_is_told_when_the_file_is_loaded(self, monkeypatch):
        monkeypatch.setenv("TRL_HYBRID_VERIFIER_METHOD", "loose")
        with pytest.raises(InputError, match="TRL_HYBRID_VERIFIER_METHOD"):
            load_file("openrlhf_reward")


class TestMsSwift:
    """ms-swift 4.6.0: `orms` by name, made with `args`, called with completions and the rows' columns."""

    @pytest.fixture
    def orms(self, monkeypatch):
        rewards = ModuleType("swift.rewards")
        rewards.orms = {}
        rewards.ORM = type("ORM", (), {"__init__": lambda self, args=None, **kwargs: setattr(self, "args", args)})
        monkeypatch.setitem(sys.modules, "swift", ModuleType("swift"))
        monkeypatch.setitem(sys.modules, "swift.rewards", rewards)
        load_file("ms_swift_plugin")
        return rewards.orms

    def call(self, reward, solution, processes=1):
        answers = ["It is 4.", "It is 5.", "\\boxed{4}", "\\boxed{6}"]
        question = {"role": "user", "content": "What is 2 + 2?"}
        messages = [[question, {"role": "assistant", "content": answer}] for answer in answers]
        return reward(answers, messages=messages, solution=[solution] * 4, trainer_state=None)

    def test_the_verifier(self, orms):
        reward = orms["math_verifier_reward"](args=SimpleNamespace(num_generations=4))
        assert self.call(reward, "4") == [1.0, 0.0, 1.0, 0.0]
        assert self.call(reward, "") == [None] * 4

    def test_the_hybrid_reward_knows_the_group_size_from_the_arguments(self, orms, monkeypatch):
        monkeypatch.setenv("TRL_HYBRID_REWARD_MODEL", "data/embedded_reward_model")
        monkeypatch.setenv("WORLD_SIZE", "2")
        paid = self.call(orms["hybrid_reward"](args=SimpleNamespace(num_generations=4)), "4")
        assert sorted(paid) == pytest.approx([-0.1, 0.1, 0.9, 1.1], abs=1e-3)
        with pytest.raises(InputError, match=r"num_generations = 8 .*HybridGRPOTrainer"):
            self.call(orms["hybrid_reward"](args=SimpleNamespace(num_generations=8)), "4")


class TestVerifiers:
    """verifiers 0.4.0 calls plugged rewards by the names `task` and `trace`, and makes a float of what they return."""

    def rollout(self, answer, reply="It is 4.", cut_off=False, **fields):
        task = SimpleNamespace(prompt_text="What is 2 + 2?", answer=answer, **fields)
        trace = SimpleNamespace(last_reply=reply, is_truncated=cut_off)
        return asyncio.run(verifiers_reward.math_verifier(task=task, trace=trace))

    def test_right_wrong_cut_off_and_unjudgeable(self):
        assert self.rollout("4") == 1.0
        assert self.rollout("5") == 0.0
        assert self.rollout("4", cut_off=True) == 0.0
        assert self.rollout("\\undefined{") == 0.0

    def test_a_task_without_an_answer_is_told(self):
        with pytest.raises(InputError, match="must have a field `answer`, SimpleNamespace has none"):
            self.rollout(None)

    def test_what_a_rubric_calls(self):
        prompt = [{"role": "user", "content": "What is 2 + 2?"}]
        for completion, paid in [([{"role": "assistant", "content": "It is 4."}], 1.0), ("It is 5.", 0.0), ([], 0.0)]:
            called = verifiers_reward.correct_answer(prompt=prompt, completion=completion, answer="4", state={})
            assert asyncio.run(called) == paid


class TestLmEval:
    """lm-eval 0.4.13: `process_results(doc, results)`; a key that is left out is left out of the mean."""

    @pytest.mark.parametrize(
        "doc",
        [
            {"question": "What is 2 + 2?", "answer": "2 + 2 = 4\n#### 4"},
            {"problem": "What is 2 + 2?", "solution": "It is $\\boxed{4}$.", "level": "Level 1"},
        ],
    )
    def test_right_wrong_and_repeated(self, doc):
        assert lm_eval_metric.process_results(doc, ["It is 4."]) == {"math_verifier": 1.0, "judged": 1.0}
        assert lm_eval_metric.process_results(doc, ["It is 5."]) == {"math_verifier": 0.0, "judged": 1.0}
        repeated = lm_eval_metric.process_results(doc, [["It is 4.", "It is 5.", "\\boxed{4}", "?"]])
        assert repeated == {"math_verifier": 0.5, "judged": 1.0}

    @pytest.mark.parametrize("results", [[], [None], [[]], [[None]]])
    def test_an_answer_that_is_missing_is_wrong(self, results):
        doc = {"question": "What is 2 + 2?", "answer": "4"}
        assert lm_eval_metric.process_results(doc, results) == {"math_verifier": 0.0, "judged": 1.0}

    def test_unjudgeable(self):
        doc = {"question": "What is 2 + 2?", "answer": "\\undefined{"}
        assert lm_eval_metric.process_results(doc, ["It is 4."]) == {"judged": 0.0}

    def test_a_document_without_a_known_column_is_told(self):
        with pytest.raises(InputError, match="gold answer"):
            lm_eval_metric.process_results({"question": "What is 2 + 2?", "right": "4"}, ["It is 4."])


class TestInspect:
    """inspect-ai 0.3.285: a scorer is called with a state and a target, which is a sequence of alternatives."""

    @pytest.fixture
    def score(self, monkeypatch):
        scorer = ModuleType("inspect_ai.scorer")
        scorer.scorer = lambda metrics: lambda function: function
        scorer.accuracy = scorer.stderr = lambda: None
        scorer.CORRECT, scorer.INCORRECT, scorer.Score = "C", "I", SimpleNamespace
        scorer.Scorer = scorer.Target = object
        solver = ModuleType("inspect_ai.solver")
        solver.TaskState = object
        for module in (ModuleType("inspect_ai"), scorer, solver):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        return load_file("inspect_scorer").math_verifier()

    @pytest.mark.parametrize(
        ("stopped", "value"), [("stop", "C"), ("max_tokens", "I"), ("model_length", "I"), ("unknown", "C")]
    )
    def test_what_was_cut_off_has_no_last_number(self, score, stopped, value):
        output = SimpleNamespace(completion="So we get 42", stop_reason=stopped)
        state = SimpleNamespace(output=output, input_text="What is 6 * 7?")
        assert asyncio.run(score(state, ["41", "42"])).value == value


def test_the_room_says_what_each_module_is_for():
    assert adapters.__doc__
    for file in FOLDER.glob("*_*.py"):
        if not file.name.startswith("__"):
            assert "Looked at with " in file.read_text(), file
