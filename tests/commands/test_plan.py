"""`trl-hybrid plan` reads a recipe's settings and two configurations, and says what fits."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from known_shapes import TINYLLAMA
from transformers import Qwen2Config

from trl_hybrid.cli import main


RECIPE = "recipes/configs/tinyllama_grpo.yaml"


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Configurations in the shapes of TinyLlama and AceMath-7B-RM, without weights."""
    folder = tmp_path_factory.mktemp("models")
    TINYLLAMA.save_pretrained(folder / "policy")
    Qwen2Config(
        hidden_size=3584,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        intermediate_size=18944,
        vocab_size=152064,
        num_labels=1,
        architectures=["Qwen2ForSequenceClassification"],
    ).save_pretrained(folder / "reward_model")
    return [
        *("--model_name_or_path", str(folder / "policy")),
        *("--reward_model_name_or_path", str(folder / "reward_model")),
        *("--reward_model_token_budget", "16384"),
    ]


def plan(capsys, *args):
    """Plan, and return what `--json` prints; the exit status says whether it fits."""
    status = main(["plan", "--json", *map(str, args)])
    found = json.loads(capsys.readouterr().out)
    assert status == (1 if found["fits"] is False else 0)
    return found


def test_the_recipe_on_24_and_80_gb(models, capsys):
    small = plan(capsys, "--config", RECIPE, "--gpu_memory", 24, *models)
    assert small["free"] == 24 * 10**9
    assert small["policy"]["rows"] == 32
    assert small["policy"]["generated_rows"] == 128
    # bf16 weights of 1,100,048,384 and fp32 adapters of 25,231,360 parameters (tests/memory/test_training.py).
    assert small["training"]["weights"] == 2 * 1_100_048_384 + 4 * 25_231_360
    # 14,141,252,608 bytes of weights and 16384 tokens of 137,216 (tests/reward_model/test_footprint.py).
    resident = small["placements"]["resident"]
    assert (resident["lasting"], resident["passing"]) == (14_141_252_608, 16_384 * 137_216)
    assert resident["reward_model"] == 14_141_252_608 + 16_384 * 137_216
    # Scoring's workspace is less than training's, and they take turns.
    assert resident["gpu"] == small["training"]["total"] + 14_141_252_608
    assert small["placements"]["streamed"]["host"] == 16_139_179_008
    assert small["placements"]["cpu"]["gpu"] == small["training"]["total"]
    # 23.7 of 24 GB.
    assert (small["recommended"], small["fits"]) == ("resident", True)
    assert "(24.0 GB less" in small["reason"]
    assert plan(capsys, "--config", RECIPE, "--gpu_memory", 23, *models)["recommended"] == "streamed"

    large = plan(capsys, "--config", RECIPE, "--gpu_memory", 80, *models)
    assert large["training"] == small["training"]
    assert large["recommended"] == "resident"


def test_recipe_options_go_over_the_yaml_file(models, capsys):
    smaller = ["--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "16", "--max_test_rows", "0"]
    found = plan(capsys, "--config", RECIPE, "--gpu_memory", 24, *models, *smaller)
    assert found["policy"]["rows"] == 8
    assert found["policy"]["generated_rows"] == 8 * 16
    # As the YAML file says it.
    assert found["recommended"] == "resident"


def test_held_out_accuracy_samples_eight_answers_to_each_problem(models, capsys):
    found = plan(capsys, *models, "--per_device_eval_batch_size", "32")
    assert found["policy"]["generated_rows"] == 8 * 32


def test_settings_without_a_file_are_the_recipe_s(models, capsys):
    found = plan(capsys, *models)
    assert found["policy"]["rows"] == 8
    assert found["policy"]["completion_tokens"] == 384
    assert found["policy"]["trained_parameters"] == 25_231_360


def test_full_fine_tuning_with_kl_holds_a_reference_model(models, capsys):
    found = plan(capsys, *models, "--use_peft", "false", "--beta", "0.01")
    assert found["training"]["reference"] == 2 * 1_100_048_384


def test_host_memory_over_all_processes(models, capsys):
    places = plan(capsys, *models, "--gpus", 4)["placements"]
    assert places["streamed"]["host"] == 4 * 16_139_179_008
    assert places["zero3"]["host"] == 26_810_753_024


def test_without_a_gpu_there_is_a_table_and_a_hint_but_no_recommendation(models, capsys):
    assert main(["plan", *models]) == 0
    out = capsys.readouterr().out
    assert "10^9 bytes" in out
    assert re.search(r"reward model +14\.14 +1\.40 +0\.00 +0\.00\n", out)
    # 16384 tokens: 16384 x (137,216 + 8 x 7,680) bytes streamed, two layers and the embedding more under zero3.
    assert re.search(r"scoring .1. +2\.25 +3\.25 +4\.27 +0\.00\nall", out)
    assert "Activations are an upper bound: full rows, each with its prompt" in out
    assert "give --gpu_memory" in out
    assert "Recommended" not in out


def test_the_table_recommends_and_says_why(models, capsys):
    assert main(["plan", *models, "--gpu_memory", "80"]) == 0
    out = capsys.readouterr().out
    assert "Recommended placement: resident: needs 14." in out
    assert "--gpu_memory" not in out
    assert out.endswith("80.00 GB are free on each GPU.\n")


def test_training_that_does_not_fit_is_said(models, capsys):
    found = plan(capsys, *models, "--gpu_memory", 2)
    assert found["recommended"] is None  # no place of the reward model would help
    assert found["fits"] is False
    assert "Training alone does not fit" in found["notes"][0]
    # Weights and context alone are more than 2 GB: the settings that lack least are named.
    assert found["suggestions"] == []
    assert found["nearest"]["gpu"] > 2 * 10**9
    assert found["nearest"]["options"]["per_device_train_batch_size"] == "1"


def with_options(suggestion):
    return [text for name, value in suggestion["options"].items() for text in (f"--{name}", value)]


@pytest.mark.parametrize(
    "asked",
    [
        ["--gpu_memory", 20.5, "--reward_model_placement", "resident"],
        ["--gpu_memory", 6, "--host_memory", 20],
        ["--gpu_memory", 12, "--use_peft", "false", "--gradient_checkpointing", "false"],
        ["--gpu_memory", 16, "--gpus", 2, "--reward_model_placement", "resident", "--max_completion_length", 2000],
    ],
)
def test_what_is_suggested_fits_when_it_is_asked_for(models, capsys, asked):
    asked = ["--config", RECIPE, *models, *asked]
    found = plan(capsys, *asked)
    assert found["fits"] is False
    assert found["suggestions"]
    for suggestion in found["suggestions"]:
        again = plan(capsys, *asked, *with_options(suggestion))
        assert again["fits"] is True
        assert again["placements"][suggestion["placement"]]["gpu"] == suggestion["gpu"] <= found["free"]
        assert again["policy"]["trained_parameters"] == found["policy"]["trained_parameters"]
        settings = {"per_device_train_batch_size": "32", "gradient_accumulation_steps": "4", **suggestion["options"]}
        together = int(settings["per_device_train_batch_size"]) * int(settings["gradient_accumulation_steps"])
        assert together == 128  # the step stays what it was


def test_the_fewest_changes_come_first(models, capsys):
    found = plan(capsys, "--config", RECIPE, *models, "--gpu_memory", 20.5, "--reward_model_placement", "resident")
    assert [suggestion["options"] for suggestion in found["suggestions"]] == [
        {"reward_model_placement": "streamed"},
        {"per_device_train_batch_size": "8", "gradient_accumulation_steps": "16"},
    ]
    assert found["nearest"] is None


def test_adapters_are_suggested_where_smaller_batches_do_not_do(models, capsys):
    found = plan(capsys, "--config", RECIPE, *models, "--gpu_memory", 8, "--use_peft", "false")
    assert all(suggestion["options"]["use_peft"] == "true" for suggestion in found["suggestions"])
    assert found["suggestions"]


def test_where_only_the_cpu_is_left_for_scoring_settings_for_the_gpu_are_named(models, capsys):
    found = plan(capsys, "--config", RECIPE, *models, "--gpu_memory", 10)
    assert (found["recommended"], found["fits"]) == ("cpu", True)
    assert [suggestion["placement"] for suggestion in found["suggestions"]] == ["streamed"]


def test_host_memory_decides_too(models, capsys):
    asked = ["--config", RECIPE, *models, "--gpu_memory", 16]
    assert plan(capsys, *asked, "--host_memory", 17)["recommended"] == "streamed"
    short = plan(capsys, *asked, "--host_memory", 16)
    assert (short["recommended"], short["fits"]) == (None, False)
    assert "No placement of the reward model fits" in short["reason"]
    # Two processes hold two copies.
    assert plan(capsys, *asked, "--host_memory", 17, "--gpus", 2)["fits"] is False
    chosen = plan(capsys, *asked, "--host_memory", 16, "--reward_model_placement", "cpu")
    assert chosen["fits"] is False


def test_the_exit_status_and_the_options_are_for_people_too(models, capsys):
    asked = ["plan", "--config", RECIPE, *models, "--gpu_memory", "16", "--reward_model_placement"]
    assert main([*asked, "resident"]) == 1
    out = capsys.readouterr().out
    assert "Does not fit: 23.68 GB on each GPU; 16.00 GB are free on each GPU." in out
    assert "What fits, by the same estimate; add:\n  --reward_model_placement streamed   (" in out
    assert main([*asked, "streamed"]) == 0
    assert "\nFits: " in capsys.readouterr().out


def test_deepspeed_s_sharing_is_counted_where_the_launch_is_named(models, capsys):
    asked = [*models, "--use_peft", "false", "--dtype", "float32", "--gpus", 4]
    shared = plan(capsys, *asked, "--launch_config", "accelerate_configs/zero2.yaml")
    assert shared["training"]["optimizer"] == 12 * 1_100_048_384 // 4
    assert shared["training"]["gradients"] == 2 * 1_100_048_384 // 4
    assert plan(capsys, *asked)["training"]["optimizer"] == 8 * 1_100_048_384
    # The file's own number of processes, where none is given.
    assert plan(capsys, *models, "--launch_config", "accelerate_configs/zero2.yaml")["gpus"] == 8
    offloaded = plan(capsys, *asked, "--launch_config", "accelerate_configs/zero3_offload.yaml")
    assert offloaded["placements"]["resident"]["host"] == 4 * offloaded["training"]["host"] > 0


def test_the_share_of_a_colocated_vllm_is_not_free(models, capsys):
    found = plan(
        capsys,
        *(*models, "--gpu_memory", 80, "--use_vllm", "true", "--vllm_mode", "colocate"),
        *("--vllm_gpu_memory_utilization", "0.25", "--max_test_rows", "0"),
    )
    assert found["free"] == 60 * 10**9
    assert found["training"]["generation"] == 0


def test_held_out_accuracy_is_not_vllm_s(models, capsys):
    found = plan(capsys, *models, "--use_vllm", "true", "--per_device_eval_batch_size", "4")
    assert found["policy"]["generated_rows"] == 8 * 4


def test_the_reward_model_s_number_type_counts(models, capsys):
    whole = plan(capsys, *models, "--reward_model_dtype", "float32")["reward_model"]["weights"]
    half = plan(capsys, *models, "--reward_model_dtype", "bfloat16")["reward_model"]["weights"]
    assert half == plan(capsys, *models)["reward_model"]["weights"] == 14_141_252_608
    assert whole == 2 * half - 3584 * 4  # the head is fp32 in both


def test_a_quantized_reward_model_is_smaller_and_resident(models, capsys):
    places = plan(capsys, *models, "--reward_model_load_in_4bit", "true", "--gpu_memory", 80)["placements"]
    # Layers of 13,051,236,352 bytes from 16 to 4.5 bits; embedding, norm and head as they are.
    assert places["resident"]["lasting"] == 13_051_236_352 * 4.5 / 16 + 1_089_994_752 + 21_504
    assert list(places) == ["resident"]


def test_the_embedded_models(capsys):
    found = plan(capsys, "--config", "recipes/configs/embedded.yaml", "--gpu_memory", 4, "--prompt_tokens", 16)
    assert found["recommended"] == "resident"
    assert found["training"]["weights"] == 4 * found["policy"]["parameters"]  # all fp32


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--model_name_or_path", "no/such-model"], "The policy 'no/such-model' cannot be loaded"),
        (
            ["--model_name_or_path", "data/embedded_policy", "--reward_model_name_or_path", "no/such-model"],
            "The reward model 'no/such-model' cannot be loaded",
        ),
        (["--config", "nowhere.yaml"], "does not exist"),
        (["--gpu_memory", "0"], "must be a number above 0, got 0"),
        (["--gpu_memory", "abc"], "must be a number above 0, got abc"),
        (["--gpus", "0"], "must be a whole number of at least 1, got 0"),
        (["--gpus", "two"], "must be a whole number of at least 1, got two"),
        (["--launch_config", "nowhere.yaml"], "A launch configuration is a YAML file"),
        (["--no_such_option", "1"], "no_such_option"),
    ],
)
def test_bad_input_is_one_message_and_exits_with_2(capsys, args, said):
    with pytest.raises(SystemExit) as stop:
        main(["plan", *args])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_other_commands_still_refuse_unknown_options(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["verify", "--completions", "c.jsonl", "--max_steps", "1"])
    assert stop.value.code == 2
    assert "unrecognized arguments: --max_steps 1" in capsys.readouterr().err


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["plan", "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "--gpu_memory 24" in out
    assert "streamed  in pinned host memory" in out


def page_rows():
    """GPUs, GB of one, launch config, recipe config and options, placement, GB of GPU and host: docs/placement.md."""
    row = r"^\| (\d+) x (\d+) GB.*? \| `(\w+)` \| `(\w+\.yaml)([^`]*)` \| `(\w+)` \| ([\d.]+) \| ([\d.]*) ?\|$"
    return re.findall(row, Path("docs/placement.md").read_text(), re.M)


def test_the_page_has_a_row_for_every_size():
    rows = page_rows()
    assert {int(size) for _, size, *_ in rows} == {16, 24, 40, 80}
    for gpus, _, launch, *_ in rows:
        assert Path("accelerate_configs", f"{launch}.yaml").is_file()
        assert (launch == "single_gpu") == (gpus == "1")


@pytest.mark.parametrize(("gpus", "size", "launch", "config", "options", "placement", "gpu", "host"), page_rows())
def test_the_page_s_sizes_are_the_plan_s(models, capsys, gpus, size, launch, config, options, placement, gpu, host):
    path, added = Path("recipes/configs", config), options.split()
    default_tokens = models[:-2]
    launched = ["--launch_config", f"accelerate_configs/{launch}.yaml", "--gpus", gpus]
    found = plan(capsys, "--config", path, *launched, "--gpu_memory", size, *default_tokens, *added)
    assert found["fits"] is True
    assert placement == (found["recommended"] if found["chosen"] == "auto" else found["chosen"])
    place = found["placements"][placement]
    assert (gpu, host) == (f"{place['gpu'] / 1e9:.1f}", f"{place['host'] / 1e9:.1f}" if place["host"] else "")
    assert place["gpu"] <= int(size) * 10**9
    settings = yaml.safe_load(path.read_text()) | {
        name.removeprefix("--"): value for name, value in zip(added[::2], added[1::2], strict=True)
    }
    rows, steps = settings["per_device_train_batch_size"], settings["gradient_accumulation_steps"]
    assert int(gpus) * int(rows) * int(steps) == 16 * 8
