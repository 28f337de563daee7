"""What recipes do around training: one folder for all processes, and how the policy is loaded."""

from types import SimpleNamespace

import pytest
import torch
from transformers import TrainingArguments
from trl import ModelConfig

from trl_hybrid.errors import InputError
from trl_hybrid.launch import check_folder, loading_arguments, named_folder, prepare_folder, what_is_left


@pytest.fixture
def args(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return TrainingArguments("trainer_output", run_name="mine", report_to="none", use_cpu=True)


def test_without_a_name_the_run_gets_a_folder_of_its_own(args, tmp_path):
    assert check_folder(args, overwrite=False) == (None, None)
    assert str(prepare_folder(None, args, clear=False)) == args.output_dir == "runs/mine"
    assert (tmp_path / "runs/mine").is_dir()
    assert str(prepare_folder(None, args, clear=False)) == "runs/mine-2"


def test_a_named_folder_is_cleared_only_when_asked(args, tmp_path):
    folder = tmp_path / "named"
    folder.mkdir()
    for name in ("summary.json", "samples.jsonl", "notes.txt"):
        (folder / name).write_text("{}")
    args.output_dir = str(folder)
    with pytest.raises(InputError, match="is not empty"):
        named_folder(args, overwrite=False)
    assert named_folder(args, overwrite=True) == folder
    prepare_folder(folder, args, clear=False)
    assert (folder / "summary.json").exists()
    prepare_folder(folder, args, clear=True, also=("samples.jsonl",))
    assert {path.name for path in folder.iterdir()} == {"notes.txt"}


def test_what_is_left_names_the_way_on(tmp_path):
    assert what_is_left(tmp_path).endswith(f"--output_dir {tmp_path} --overwrite_output_dir")


def test_only_safetensors_are_read_and_own_arguments_go_over_the_model_s():
    model = ModelConfig("some/model", model_revision="v1", dtype="float32")
    found = loading_arguments(SimpleNamespace(model_init_kwargs={"dtype": "bfloat16"}), model)
    assert found == {
        "revision": "v1", "attn_implementation": None, "dtype": "bfloat16", "use_safetensors": True,
    }  # fmt: skip
    assert loading_arguments(SimpleNamespace(model_init_kwargs=None), model)["dtype"] == "float32"
    with pytest.raises(InputError, match="use_safetensors False"):
        loading_arguments(SimpleNamespace(model_init_kwargs={"use_safetensors": False}), model)


def test_a_policy_with_pickled_weights_alone_is_refused(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained("data/embedded_policy")
    model.config.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained("data/embedded_policy").save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    kwargs = loading_arguments(SimpleNamespace(model_init_kwargs=None), ModelConfig())
    with pytest.raises(OSError, match="safetensors"):
        AutoModelForCausalLM.from_pretrained(tmp_path, **kwargs)
