"""How many held-out problems a run measures, and what it says of the policy's prompts."""

import json
import shutil

import pytest
from trl import ModelConfig

from trl_hybrid import HybridGRPOConfig, MathVerifier
from trl_hybrid.arguments import TaskArguments
from trl_hybrid.data.prompt_reader import PromptReader
from trl_hybrid.splits import checked_splits


POLICY = "data/embedded_policy"


@pytest.fixture(scope="module")
def verifier():
    with MathVerifier(num_workers=1) as verifier:
        yield verifier


def splits(verifier, checkpoint=None, policy=POLICY, max_steps=1, **tasks):
    args = HybridGRPOConfig(
        "unused", use_cpu=True, report_to="none", max_completion_length=40, max_steps=max_steps, num_generations=8,
        per_device_train_batch_size=128,
    )  # fmt: skip
    asked = TaskArguments(dataset_name="data/addition", max_rows=32, **tasks)
    train, test = checked_splits(asked, args, ModelConfig(model_name_or_path=policy), verifier, checkpoint)
    assert len(train) == 32
    assert len(test) == asked.max_test_rows
    return asked.max_test_rows


def test_a_short_run_measures_fewer_problems_unless_told(verifier, capsys):
    # 9 answers each, twice: 40 steps of 128 completions pay for 284 problems, of which 256 are taken, and 10 for 71.
    assert splits(verifier, max_steps=40) == 256
    assert splits(verifier, max_steps=10) == 71
    assert "Of 256 held-out problems 71 are measured, for a short run" in capsys.readouterr().out
    assert splits(verifier, max_steps=1) == 16
    assert splits(verifier, max_steps=1, max_test_rows=40) == 40


def test_a_run_that_goes_on_measures_what_it_measured_at_its_start(verifier, tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps({"settings": {"tasks": {"max_test_rows": 20}}}))
    assert splits(verifier, str(tmp_path / "checkpoint-5"), max_steps=10) == 20


def with_template(folder, template):
    shutil.copytree(POLICY, folder)
    (folder / "chat_template.jinja").write_text(template)
    return str(folder)


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
OWN = "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a bot.<|im_end|>\n{% endif %}"
REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
# Llama's writes the day into a system block of its own, around what is given.
DATED = "<s>system\nToday is a day.\n\n{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}</s>?"


@pytest.mark.parametrize(
    ("template", "own"),
    [(CHATML, None), (OWN + CHATML, "You are a bot."), (REFUSES + CHATML, None), (DATED, None)],
    ids=["plain", "own", "refuses", "dated"],
)  # fmt: skip
def test_system_message_that_the_template_writes_by_itself(tmp_path, template, own):
    reader = PromptReader(with_template(tmp_path / "it", template), max_completion_length=40)
    assert reader.own_system_message() == own


def test_it_is_said_where_none_is_given(verifier, tmp_path, capsys):
    policy = with_template(tmp_path / "it", OWN + CHATML)
    splits(verifier, policy=policy)
    assert "none is given, and the policy's template writes its own: 'You are a bot.'" in capsys.readouterr().out
    splits(verifier, policy=policy, system_prompt="Add in \\boxed{}.")
    splits(verifier)
    assert "writes its own" not in capsys.readouterr().out
