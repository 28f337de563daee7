"""The command line over YAML over the recipe's defaults; wrong keys are named with what was meant."""

import os
import subprocess
import sys
from dataclasses import asdict
from types import MappingProxyType

import pytest
from trl import GRPOConfig, ModelConfig
from trl.scripts.utils import DatasetConfig

from trl_hybrid import HybridGRPOConfig, MathVerifier
from trl_hybrid.errors import InputError, plain_errors
from trl_hybrid.recipe.options import JudgeArguments, TaskArguments, verifier_settings
from trl_hybrid.recipe.parsing import parse_arguments


CLASSES = (TaskArguments, JudgeArguments, HybridGRPOConfig, ModelConfig)


def parse(*args, defaults=None):
    return parse_arguments(CLASSES, {"report_to": "none", **(defaults or {})}, ["--use_cpu", *args])


def test_command_line_goes_over_yaml_goes_over_defaults(tmp_path):
    (tmp_path / "c.yaml").write_text("max_rows: 5\nhybrid_alpha: 0.2\n")
    defaults = {"max_rows": 1, "hybrid_alpha": 0.3, "temperature": 0.8}
    tasks, _, args, _ = parse("--config", str(tmp_path / "c.yaml"), "--hybrid_alpha", "0.25", defaults=defaults)
    assert (tasks.max_rows, args.hybrid_alpha, args.temperature) == (5, 0.25, 0.8)


def test_defaults_leave_trls_kl_alone_and_do_not_scale_advantages():
    _, judges, args, _ = parse()
    assert args.beta == 0.0
    assert args.hybrid_beta == 0.1
    assert args.scale_rewards == "none"
    assert judges.reward_model_name_or_path == "nvidia/AceMath-7B-RM"


def test_the_verifiers_settings_reach_it_and_are_by_default_its_own(tmp_path):
    _, judges, *_ = parse("--verifier_method", "flexible", "--verifier_format_reward", "0.1")
    with MathVerifier(**verifier_settings(judges)) as verifier:
        assert (verifier.method, verifier.correct_reward, verifier.format_reward) == ("flexible", 1.0, 0.1)
    names = ("method", "correct_reward", "format_reward", "timeout", "num_workers", "memory_limit_mb")
    default, own = MathVerifier(**verifier_settings(parse()[1])), MathVerifier()
    assert [getattr(default, name) for name in names] == [getattr(own, name) for name in names]


def test_bf16_is_off_where_nothing_computes_in_it(tmp_path):
    assert HybridGRPOConfig(str(tmp_path), use_cpu=True).bf16 is False
    assert HybridGRPOConfig(str(tmp_path), use_cpu=True, bf16=True).bf16 is True


def test_unknown_yaml_key_names_the_near_ones(tmp_path):
    (tmp_path / "c.yaml").write_text("num_generatons: 8\n")
    with pytest.raises(InputError, match=r"Unknown key 'num_generatons'.*num_generations"):
        parse("--config", str(tmp_path / "c.yaml"))


@pytest.mark.parametrize(("content", "rule"), [("a: [", "not valid YAML"), ("- a", "key: value")])
def test_broken_yaml(tmp_path, content, rule):
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(InputError, match=rule):
        parse("--config", str(tmp_path / "c.yaml"))


def test_mixture_of_data_sets_as_trl_writes_it(tmp_path):
    (tmp_path / "c.yaml").write_text("datasets:\n  - path: a.jsonl\n  - path: b\n    name: main\n    fraction: 0.5\n")
    tasks = parse("--config", str(tmp_path / "c.yaml"))[0]
    assert tasks.datasets == [DatasetConfig("a.jsonl"), DatasetConfig("b", name="main", fraction=0.5)]
    saved = asdict(tasks)
    assert TaskArguments(**saved).datasets == tasks.datasets
    assert saved["datasets"][0]["path"] == "a.jsonl"


@pytest.mark.parametrize("entry", ["pth: a.jsonl", "{path: a.jsonl, fractoin: 1}"])
def test_mixture_with_a_wrong_key(tmp_path, entry):
    (tmp_path / "c.yaml").write_text(f"datasets:\n  - {entry}\n")
    with pytest.raises(InputError, match=r"Each entry of `datasets` needs `path` and may have name, .*; got"):
        parse("--config", str(tmp_path / "c.yaml"))


def test_config_may_be_given_with_an_equals_sign(tmp_path):
    (tmp_path / "c.yaml").write_text("max_rows: 5\n")
    assert parse(f"--config={tmp_path / 'c.yaml'}")[0].max_rows == 5


def test_wrong_type_is_said_without_the_list_of_all_options(capsys):
    with pytest.raises(SystemExit):
        parse("--max_steps", "abc")
    error = capsys.readouterr().err
    assert "--max_steps" in error
    assert "invalid int value: 'abc'" in error
    assert len(error.splitlines()) < 5


def test_texts_are_taken_as_they_are_written(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(
        "run_name: 20261125\nsave_strategy: no\nsystem_prompt: 2026-11-25\nmax_steps: 7\nreport_to: none\n"
    )
    tasks, _, args, _ = parse("--config", str(config))
    assert (args.run_name, args.save_strategy, tasks.system_prompt) == ("20261125", "no", "2026-11-25")
    assert args.max_steps == 7
    config.write_text("run_name: null\nsystem_prompt: null\nmodel_init_kwargs: {num_labels: 3}\n")
    tasks, _, args, _ = parse("--config", str(config))
    assert (tasks.system_prompt, args.model_init_kwargs) == (None, {"num_labels": 3})


def test_yaml_is_utf_8_whatever_the_locale_says(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_bytes("# ö\nsystem_prompt: Löse die Aufgabe.\n".encode())
    code = (
        "from trl_hybrid.recipe.options import JudgeArguments, TaskArguments\n"
        "from trl_hybrid.recipe.parsing import parse_arguments\n"
        f"tasks, _ = parse_arguments((TaskArguments, JudgeArguments), {{}}, ['--config', {str(config)!r}])\n"
        "from trl_hybrid.errors import plain_errors\n"
        "with plain_errors(): print(tasks.system_prompt)"
    )
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
    shown = subprocess.run([sys.executable, "-c", code], env=ascii_only, capture_output=True, timeout=60, check=True)
    assert shown.stdout.decode("ascii") == "L\\xf6se die Aufgabe.\n"
    config.write_bytes("system_prompt: Löse\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"c\.yaml' must be in UTF-8"):
        parse("--config", str(config))


def test_config_without_a_file_and_env_in_it(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="--config needs the name of a YAML file"):
        parse("--config")
    monkeypatch.setenv("A_VARIABLE", "old")
    (tmp_path / "c.yaml").write_text("env:\n  A_VARIABLE: 5\n")
    parse("--config", str(tmp_path / "c.yaml"))
    assert os.environ["A_VARIABLE"] == "5"
    (tmp_path / "c.yaml").write_text("env: 5\n")
    with pytest.raises(InputError, match=r"`env` in .* must hold"):
        parse("--config", str(tmp_path / "c.yaml"))


class TestMachine:
    """A run sets itself up for a CPU, or a GPU that only emulates bfloat16, unless the user says otherwise."""

    DEFAULTS = MappingProxyType({"dtype": "bfloat16", "report_to": "none", "model_name_or_path": "it"})

    def parse(self, monkeypatch, gpu, *args, bfloat16=True):
        monkeypatch.setattr("torch.accelerator.is_available", lambda: gpu)
        monkeypatch.setattr("trl_hybrid.policy.source.has_bfloat16", lambda: bfloat16)
        *_, training, model = parse_arguments(CLASSES, dict(self.DEFAULTS), list(args), fit_machine=True)
        return training.use_cpu, training.bf16, training.gradient_checkpointing, model.dtype

    def test_by_itself(self, monkeypatch):
        assert self.parse(monkeypatch, False) == (True, False, False, "float32")

    def test_where_it_is_asked_for(self, monkeypatch):
        assert self.parse(monkeypatch, True, "--use_cpu") == (True, False, False, "float32")
        for told in ("true", "1"):  # as accelerate reads it
            monkeypatch.setenv("ACCELERATE_USE_CPU", told)
            assert self.parse(monkeypatch, True) == (True, False, False, "float32")

    def test_a_gpu_keeps_the_recipes_own(self, monkeypatch):
        monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
        assert self.parse(monkeypatch, True, "--bf16", "false") == (False, False, True, "bfloat16")

    def test_a_gpu_that_emulates_bfloat16_gets_float32(self, monkeypatch, tmp_path):
        assert self.parse(monkeypatch, True, bfloat16=False) == (False, False, True, "float32")
        assert self.parse(monkeypatch, True, "--dtype", "float16", bfloat16=False)[3] == "float16"
        (tmp_path / "c.yaml").write_text("dtype: bfloat16\n")
        told = ("--config", str(tmp_path / "c.yaml"))
        assert self.parse(monkeypatch, True, *told, bfloat16=False) == (False, False, True, "bfloat16")

    def test_what_the_user_says_goes_over_it(self, monkeypatch, tmp_path):
        (tmp_path / "c.yaml").write_text("dtype: bfloat16\n")
        told = ("--config", str(tmp_path / "c.yaml"), "--gradient_checkpointing", "true")
        assert self.parse(monkeypatch, False, *told) == (True, False, True, "bfloat16")


def test_missing_yaml():
    with pytest.raises(InputError, match="does not exist"):
        parse("--config", "nowhere.yaml")


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--hybrid_alpha", "0"], "hybrid_alpha must be"),
        (["--hybrid_beta", "1.5"], "hybrid_beta must be"),
        (["--hybrid_alpha", "0.6", "--hybrid_beta", "0.6"], r"hybrid_alpha \+ hybrid_beta must be at most 1"),
        (["--hybrid_eps", "-1"], "hybrid_eps must be"),
        (["--num_generations", "7"], "num_generations must divide.*got 7 for 8"),
    ],
)
def test_bad_values_name_field_value_and_rule(args, named):
    with pytest.raises(ValueError, match=named):
        parse("--per_device_train_batch_size", "8", *args)


def test_short_help_teaches_and_full_help_is_one_option_away(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_arguments(CLASSES, {}, ["--help"], description="Train it.", epilog="examples:\n  run it")
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert text.startswith("Train it.")
    assert "examples:\n  run it" in text
    assert "--hybrid_alpha [0.1]" in text
    assert len(text.splitlines()) < 45


def test_plain_errors_show_one_message_and_exit_with_2(capsys, monkeypatch):
    monkeypatch.delenv("TRL_HYBRID_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as stop, plain_errors():
        raise InputError("the rule, the value, the fix")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "\nerror: the rule, the value, the fix\n"


def test_what_a_library_refuses_is_one_message_too(capsys, monkeypatch):
    monkeypatch.delenv("TRL_HYBRID_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as stop, plain_errors():
        GRPOConfig("x", num_generations=1, use_cpu=True, bf16=False)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("\nerror: GRPO requires at least 2 generations")


def test_plain_errors_let_bugs_through(monkeypatch):
    for bug in (KeyError, TypeError, ValueError, RuntimeError):
        with pytest.raises(bug), plain_errors():
            raise bug("a bug")
    monkeypatch.setenv("TRL_HYBRID_TRACEBACK", "1")
    with pytest.raises(ValueError, match="at least 2"), plain_errors():
        GRPOConfig("x", num_generations=1, use_cpu=True, bf16=False)
    with pytest.raises(InputError), plain_errors():
        raise InputError("shown with its trace")


@pytest.mark.parametrize("option", ["--learning_rat", "--learning-rat=3"])
def test_a_mistyped_option_is_refused_with_the_one_that_was_meant(option):
    with pytest.raises(InputError, match=r"Unknown option '--learning.rat.*Did you mean --learning_rate\b"):
        parse(option, *([] if "=" in option else ["3"]))


def test_a_second_configuration_file_is_refused(tmp_path):
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("max_rows: 5\n")
    with pytest.raises(InputError, match="--config takes one YAML file"):
        parse("--config", str(tmp_path / "a.yaml"), "--config", str(tmp_path / "b.yaml"))
