"""`trl-hybrid serve-command` prints what starts a server, from the reward model's configuration alone."""

import re
import shlex

import pytest

from trl_hybrid.cli import main


def shown(capsys, *options):
    assert main(["serve-command", "--reward_model_name_or_path", "data/embedded_reward_model", *options]) == 0
    return capsys.readouterr().out


def test_it_names_model_length_and_number_type(capsys):
    assert shown(capsys) == (
        "vLLM:\n"
        "  vllm serve data/embedded_reward_model --runner pooling --convert classify --dtype bfloat16"
        " --max-model-len 1024 --port 8001\n"
        "SGLang:\n"
        "  python -m sglang.launch_server --model-path data/embedded_reward_model --is-embedding --dtype bfloat16"
        " --context-length 1024 --port 8001\n"
        "Training, on any machine that reaches it:\n"
        "  --reward_model_server_url http://HOST:8001\n"
    )


def test_several_gpus_a_shorter_length_and_a_mode_without_batch_effects(capsys):
    out = shown(capsys, "--gpus", "4", "--reward_model_max_length", "512", "--batch_invariant", "--port", "9")
    assert "VLLM_BATCH_INVARIANT=1 vllm serve" in out
    assert "--max-model-len 512 --tensor-parallel-size 4 --port 9\n" in out
    assert "sglang" not in out


def test_a_cpu_serves_in_float32(capsys):
    out = shown(capsys, "--gpus", "0")
    assert "--dtype float32" in out
    assert "--enforce-eager" in out
    assert shlex.split(re.search("vllm serve.*", out)[0])[2] == "data/embedded_reward_model"


def test_help_does_not_promise_that_a_key_keeps_strangers_out(capsys):
    """vLLM asks for it below /v1, /v2, /inference and /cohere, and `/classify` is none of them."""
    with pytest.raises(SystemExit):
        main(["serve-command", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "Keep the port behind a firewall: vLLM's --api-key does not guard the path that training asks." in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gpus", "0", "--batch_invariant"], "needs a GPU"),
        (["--gpus", "x"], "must be a whole number"),
        (["--port", "70000"], "must be a port"),
        (["--reward_model_name_or_path", "data/embedded_policy"], "no weight 'score.weight'|causal"),
        (["--reward_model_server_url", "http://me:sesame@judge:8001"], r"without credentials.*\*\*\*@judge"),
    ],
)
def test_bad_input(capsys, options, said):
    with pytest.raises(SystemExit) as stop:
        main(["serve-command", *options])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert re.search(said, err)
    assert "sesame" not in err
