"""A model's folder that could not be loaded is refused by its files alone, with what to do about it."""

import json
import re
import shutil
import subprocess
import sys
from functools import partial

import pytest
import torch
from hub_run import POLICY, save_policy
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from trl_hybrid.errors import InputError
from trl_hybrid.models.check import check_model, check_reward_model, check_vocabulary
from trl_hybrid.models.files import check_adapter_folder, check_listing, check_model_folder
from trl_hybrid.policy.source import find_policy


REWARD_MODEL = "data/embedded_reward_model"
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(POLICY, tmp_path / "model")


def shard(folder):
    """Split the weights over two files, as `save_pretrained` does with large models."""
    weights = load_file(folder / WEIGHTS)
    names = sorted(weights)
    parts = {"model-1.safetensors": names[:5], "model-2.safetensors": names[5:]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    (folder / WEIGHTS).unlink()


def test_whole_models_pass():
    check_model(POLICY, "policy")
    check_reward_model(REWARD_MODEL)


@pytest.mark.parametrize("lost", [1, 1000, 3_200_000, 3_279_370])
def test_weights_that_were_cut_off(folder, lost):
    file = folder / WEIGHTS
    file.write_bytes(file.read_bytes()[:-lost])
    with pytest.raises(InputError, match=rf"policy '{folder}' are not whole: {WEIGHTS}: .*header.*download"):
        check_model_folder(folder, "policy")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n", "git lfs pull"),
        (b"\x04\x00\x00\x00\x00\x00\x00\x00null", "invalid JSON in header"),
        (b"<html>502 Bad Gateway</html>", "header too large"),
    ],
)
def test_what_is_no_weights_file(folder, content, said):
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(InputError, match=said):
        check_model_folder(folder, "policy")


def test_weights_in_several_files(folder):
    shard(folder)
    check_model_folder(folder, "policy")
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(InputError, match=r"1 of 2 files are missing, the first 'model-2.safetensors'"):
        check_model_folder(folder, "policy")
    (folder / f"{WEIGHTS}.index.json").write_text("{")
    with pytest.raises(InputError, match="must name the file of each weight"):
        check_model_folder(folder, "policy")


def test_pickled_weights_are_refused_with_a_command_that_converts_them(folder):
    weights = load_file(folder / WEIGHTS)
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    with pytest.raises(InputError, match=r"Only safetensors weights are read.*has pytorch_model\.bin") as refused:
        check_model_folder(folder, "policy")
    run_advice(str(refused.value))
    check_model_folder(folder, "policy")
    assert torch.equal(load_file(folder / WEIGHTS)["model.norm.weight"], weights["model.norm.weight"])


def test_folder_without_weights_names_no_pickle_of_a_trainer(folder):
    (folder / WEIGHTS).unlink()
    (folder / "training_args.bin").write_bytes(b"")
    with pytest.raises(InputError, match="has no weights: there is neither"):
        check_model_folder(folder, "policy")


def test_missing_and_broken_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"tokenizer of the policy .* cannot be read: tokenizer\.json"):
        check_model_folder(folder, "policy")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match=r"has no tokenizer .*Copy these files"):
        check_model_folder(folder, "policy")


def test_classifier_without_its_score_head(tmp_path):
    folder = shutil.copytree(REWARD_MODEL, tmp_path / "model")
    weights = load_file(folder / WEIGHTS)
    save_file({name: weight for name, weight in weights.items() if name != "score.weight"}, folder / WEIGHTS)
    with pytest.raises(InputError, match=r"has no weight 'score\.weight': it would be random"):
        check_reward_model(str(folder))


def test_models_in_each_others_place():
    with pytest.raises(ValueError, match="is a causal language model"):
        check_reward_model(POLICY)
    with pytest.raises(InputError, match="policy must be a language model that writes answers"):
        check_model(REWARD_MODEL, "policy")


def test_adapter_as_policy_names_its_base_and_a_command_that_merges_it(tmp_path):
    folder = tmp_path / "adapter"
    trained = save_policy(folder)
    with pytest.raises(InputError, match=f"must be a whole model; '{folder}' is an adapter on '{POLICY}'") as refused:
        check_model(str(folder), "policy")
    run_advice(str(refused.value))
    check_model(str(folder / "merged"), "policy")
    merged = AutoModelForCausalLM.from_pretrained(folder / "merged")
    ids = AutoTokenizer.from_pretrained(folder / "merged").apply_chat_template(
        [{"role": "user", "content": "What is 12 + 30?"}], add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits[0], trained.logits, atol=1e-3)
    with pytest.raises(InputError, match=f"Its whole model lies in '{folder}/merged'"):
        check_model(str(folder), "policy")


def test_adapter_whose_weights_are_not_whole_is_not_measured(tmp_path):
    save_policy(tmp_path)
    assert find_policy(str(tmp_path)).base == POLICY
    file = tmp_path / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"weights of the adapter .* are not whole"):
        find_policy(str(tmp_path))
    file.rename(tmp_path / "adapter_model.bin")
    with pytest.raises(InputError, match="other weights, which may hold code"):
        check_adapter_folder(tmp_path)


def test_repositories_are_judged_by_their_files_names():
    check_listing(["config.json", WEIGHTS], "me/it", "policy")
    with pytest.raises(InputError, match=r"has pytorch_model\.bin.*give 'it'"):
        check_listing(["config.json", "pytorch_model.bin"], "me/it", "policy")
    with pytest.raises(InputError, match=r"'me/it' is an adapter\. Merge it once, and give 'it-merged'"):
        check_listing(["adapter_config.json", "adapter_model.safetensors"], "me/it", "policy")


@pytest.mark.parametrize(
    ("source", "check", "rows"),
    [(POLICY, partial(check_model, role="policy"), 314), (REWARD_MODEL, check_reward_model, 330)],
)
def test_tokenizer_with_more_tokens_than_the_embedding(tmp_path, source, check, rows):
    folder = shutil.copytree(source, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(folder)
    with pytest.raises(InputError, match=rf"embedding, which has {rows}.* first with '<pad>', whose id is {rows}"):
        check(str(folder))


def test_special_tokens_that_nothing_writes_may_lie_beyond_the_embedding():
    tokenizer = AutoTokenizer.from_pretrained(POLICY)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    check_vocabulary(tokenizer, 314, "it", "policy")
    tokenizer.chat_template = f"<image>{tokenizer.chat_template}"
    with pytest.raises(InputError, match="'<image>'"):
        check_vocabulary(tokenizer, 314, "it", "policy")


def run_advice(message):
    """Run the command that a message gives."""
    code = re.search(r'python -c "(.*)"', message)[1]
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, timeout=100)
