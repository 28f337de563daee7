"""`RewardModel` behind a server: our template and limit, its own cache and state, and nothing but two small files."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from reward_server import score_of, serving

from trl_hybrid import RewardModel
from trl_hybrid.checks.models import ModelChecks
from trl_hybrid.cli import main
from trl_hybrid.commands.eval_settings import _judges
from trl_hybrid.errors import InputError
from trl_hybrid.models.check import check_reward_model
from trl_hybrid.recipe.endings import plain_ends
from trl_hybrid.recipe.options import JudgeArguments, reward_model_settings
from trl_hybrid.reward_model import scorer as scorer_module
from trl_hybrid.reward_model.server import RewardServerError
from trl_hybrid.verifier import MathVerifier


@pytest.fixture
def server(qwen2):
    with serving(model=qwen2.path) as server:
        yield server


def served(qwen2, server, **arguments):
    return RewardModel(qwen2.path, server_urls=[server.url], **arguments)


def test_rows_are_rendered_here_and_only_the_configuration_and_the_tokenizer_are_loaded(
    qwen2, server, tmp_path, monkeypatch
):
    monkeypatch.setattr(scorer_module, "load_backend", lambda *given: pytest.fail("the weights were loaded"))
    folder = tmp_path / "light"
    shutil.copytree(qwen2.path, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    check_reward_model(str(folder), served=True)
    with pytest.raises(InputError, match="no weights"):
        check_reward_model(str(folder))
    server.model = str(folder)
    scorer = RewardModel(str(folder), server_urls=server.url, system_prompt="Be strict.")
    server.requests.clear()
    [score] = scorer(["What is 2 + 2?"], ["4"])
    messages = [("system", "Be strict."), ("user", "What is 2 + 2?"), ("assistant", "4")]
    ids = qwen2.ids([{"role": role, "content": content} for role, content in messages])
    assert server.requests == [[ids]]
    assert score == score_of(ids)
    assert scorer.placement == "server"


def test_equal_rows_are_asked_once_and_a_resumed_scorer_asks_nothing_again(qwen2, server):
    scorer = served(qwen2, server)
    scores = scorer(["1 + 1"] * 3, ["2", "2", "3"])
    state = json.loads(json.dumps(scorer.state_dict()))
    assert scores[0] == scores[1]
    other = served(qwen2, server)
    other.load_state_dict(state)
    server.requests.clear()
    assert other(["1 + 1"] * 3, ["2", "2", "3"]) == scores
    assert server.requests == []


def test_scores_of_weights_that_were_loaded_here_are_not_taken_over(qwen2, server, caplog):
    """They are of the same model, and not of the same computation: the server's number type is its own."""
    own = RewardModel(qwen2.path, device="cpu")
    own(["1 + 1"], ["2"])
    scorer = served(qwen2, server)
    scorer.load_state_dict(own.state_dict())
    assert len(scorer.cache) == 0
    assert "not taken over" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"placement": "resident"}, "its placement is 'resident'"),
        ({"quantization_config": object()}, "is not quantized here"),
        ({"server_urls": None, "placement": "server"}, "needs the server's address"),
        ({"server_urls": ["http://me:sesame@judge:1"]}, r"without credentials, but got 'http://\*\*\*@judge:1'"),
        ({"max_length": 100_000}, "takes rows of at most 64 tokens, but they may have 512"),
    ],
)
def test_what_does_not_go_together(qwen2, server, arguments, said):
    server.max_length = 64
    with pytest.raises(InputError, match=said) as error:
        RewardModel(qwen2.path, **{"server_urls": [server.url], **arguments})
    assert "sesame" not in str(error.value)


def test_a_known_model_must_prefer_a_solution(qwen2, server, monkeypatch):
    preset = SimpleNamespace(system_prompt=None, prefers_solutions=True)
    monkeypatch.setattr(scorer_module, "find_preset", lambda name: preset)
    monkeypatch.setattr(scorer_module, "Path", lambda name: SimpleNamespace(is_dir=lambda: False))
    monkeypatch.setattr(server, "answer", lambda body: _by_length(server, body))
    with pytest.raises(InputError, match="must prefer a worked solution to an empty one"):
        served(qwen2, server)


def _by_length(server, body):
    """The longer the worse."""
    data = [{"index": n, "probs": [-float(len(row))]} for n, row in enumerate(body["input"])]
    return {"model": server.model, "data": data}


class TestRecipe:
    def test_options(self):
        judges = JudgeArguments(reward_model_server_url="http://a:1,http://b:1", reward_model_server_timeout=3.0)
        settings = reward_model_settings(judges)
        assert settings == {"server_urls": "http://a:1,http://b:1", "server_timeout": 3.0}
        with pytest.raises(InputError, match="needs the server's address"):
            JudgeArguments(reward_model_placement="server")
        with pytest.raises(InputError, match="without credentials") as error:
            JudgeArguments(reward_model_server_url="http://me:sesame@a:1")
        assert "sesame" not in str(error.value)

    def test_eval_asks_the_run_s_server_or_another_or_loads_the_weights(self):
        own = {"reward_model_name_or_path": "my/rm", "reward_model_server_url": "http://a:1"}

        def urls(placement=None, url=None):
            given = SimpleNamespace(
                reward_model="",
                reward_model_placement=placement,
                reward_model_server_url=url,
                reward_model_system_prompt=None,
            )
            return _judges(given, own).reward_model_server_url

        assert (urls(), urls(url="http://b:1"), urls(placement="auto")) == ("http://a:1", "http://b:1", None)

    def test_check_asks_the_server_and_says_that_nothing_is_loaded(self, qwen2, server):
        asked = []
        training = SimpleNamespace(device=torch.device("cpu"))
        judges = JudgeArguments(
            reward_model_name_or_path=qwen2.path, reward_model_server_url=server.url, reward_model_placement="server"
        )
        row = {"prompt": [{"role": "user", "content": "What is 2 + 2?"}], "solution": "4"}
        with MathVerifier() as verifier, pytest.MonkeyPatch.context() as patch:
            patch.setattr("trl_hybrid.checks.models.reserved_bytes", lambda *given, **named: 0)
            checks = ModelChecks(
                judges, training, SimpleNamespace(), [row], verifier, lambda question: asked.append(question) or True
            )
            found = list(checks.reward_model())
        assert asked == [f"Ask the reward model {qwen2.path}'s server {server.url}?"]
        assert found[0].text.startswith(f"Behind {server.url}: asked, and its tokenizer and configuration loaded")
        assert {finding.status for finding in found} == {"ok"}

    def test_plan_says_that_nothing_is_loaded(self, capsys, qwen2):
        models = ["--model_name_or_path", "data/embedded_policy", "--reward_model_name_or_path", qwen2.path]
        options = ["--reward_model_server_url", "http://a:1", "--gpu_memory", "24"]
        assert main(["plan", *models, *options, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["chosen"], found["fits"], list(found["placements"])) == ("server", True, ["server"])
        assert found["placements"]["server"]["reward_model"] == 0
        assert found["placements"]["server"]["gpu"] == found["training"]["total"]
        assert main(["plan", *models, *options]) == 0
        assert "behind http://a:1: only its tokenizer and configuration are loaded here" in capsys.readouterr().out

    def test_a_run_whose_servers_are_gone_ends_with_how_to_go_on(self, tmp_path, capsys):
        trainer = SimpleNamespace(state=SimpleNamespace(global_step=7))
        with pytest.raises(SystemExit) as left, plain_ends(tmp_path, trainer, lambda folder: "To go on: this."):
            raise RewardServerError("The servers are gone.")
        assert left.value.code == 2
        assert capsys.readouterr().err == "\nerror: At step 7: The servers are gone.\nTo go on: this.\n"
