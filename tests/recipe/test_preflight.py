"""A silent judge or a missing model is found before anything is paid for."""

import math
from types import SimpleNamespace

import pytest

from trl_hybrid.errors import InputError
from trl_hybrid.models.check import check_model_found
from trl_hybrid.recipe.preflight import check_judges, check_push, check_run_length
from trl_hybrid.training.config import HybridGRPOConfig
from trl_hybrid.verifier import MathVerifier


TASKS = [{"prompt": f"What is {i} + 1?", "solution": str(i + 1)} for i in range(12)]


class Scores:
    """A reward model that gives what it is told, and remembers what it saw."""

    def __init__(self, give):
        self.give = give

    def compute_batch_reward(self, prompts, completions):
        assert len(prompts) == len(completions)
        self.seen = completions
        return [self.give(i) for i in range(len(completions))]


def test_working_judges_pass_on_ten_rows(verifier):
    reward_model = Scores(float)
    assert check_judges(verifier, reward_model, TASKS) == {"min_score": 0.0, "max_score": 9.0}
    assert reward_model.seen[0] == "The answer is \\boxed{1}."
    assert len(reward_model.seen) == 20


@pytest.mark.parametrize("method", ["boxed", "strict", "flexible"])
def test_each_method_gets_the_form_that_it_reads(method):
    reward_model = Scores(float)
    with MathVerifier(method, num_workers=1) as verifier:
        check_judges(verifier, reward_model, TASKS)
    assert reward_model.seen[0] == ("#### 1" if method == "strict" else "The answer is \\boxed{1}.")


@pytest.mark.parametrize(
    ("give", "message"), [(lambda i: math.nan, "gives nan"), (lambda i: 0.5, "the same score 0.5")]
)
def test_silent_reward_model(verifier, give, message):
    with pytest.raises(InputError, match=message):
        check_judges(verifier, Scores(give), TASKS)


@pytest.mark.parametrize(
    ("correct", "message"), [(False, "judges"), (None, "cannot judge the gold answer '1' of row 0"), (True, "judges")]
)
def test_verifier_that_says_the_same_to_everything(correct, message):
    verdict = SimpleNamespace(correct=correct, reason="mismatch")
    verifier = SimpleNamespace(
        method="math_verify", verify_batch=lambda completions, solutions: [verdict] * len(completions)
    )
    with pytest.raises(InputError, match=message):
        check_judges(verifier, Scores(float), TASKS)


def test_a_busy_machine_does_not_blame_a_gold():
    verdict = SimpleNamespace(correct=None, reason="starved")
    verifier = SimpleNamespace(
        method="math_verify", verify_batch=lambda completions, solutions: [verdict] * len(completions)
    )
    assert check_judges(verifier, Scores(float), TASKS)["max_score"] == 9.0


def test_local_model_is_found_without_the_hub(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "trl_hybrid.recipe.preflight.HfApi.model_info", lambda self, *args, **kwargs: asked.append(args)
    )
    check_model_found("data/embedded_policy", "policy")
    assert not asked


def test_folder_without_a_model_is_said_to_be_one():
    with pytest.raises(InputError, match=r"policy's folder must hold a config\.json, 'data' has none"):
        check_model_found("data", "policy")


@pytest.mark.parametrize("name", ["nobody/nothing", "no/such/folder"])
def test_missing_model_names_role_id_and_the_way_on(name):
    with pytest.raises(InputError, match=rf"The policy '{name}' cannot be loaded(?s:.)*embedded\.yaml"):
        check_model_found(name, "policy")


def test_run_that_could_not_make_a_step():
    check_run_length(8, 8, max_steps=-1)
    check_run_length(None, 8, max_steps=10)
    with pytest.raises(InputError, match=r"A step needs 8 problems.*got 7"):
        check_run_length(7, 8, max_steps=100)
    with pytest.raises(InputError, match=r"dataset_streaming.*got -1"):
        check_run_length(None, 8, max_steps=-1)


def test_push_without_network_is_found_before_the_run():
    with pytest.raises(InputError, match="push_to_hub needs the network and a login"):
        check_push(HybridGRPOConfig("unused", use_cpu=True))
    with pytest.raises(InputError, match=r"no checkpoints: hub_strategy must be 'end', got 'checkpoint'"):
        check_push(HybridGRPOConfig("unused", use_cpu=True, hub_strategy="checkpoint"))
