"""A reward model is trained on the rows that are scored later, at the token that is read then, and saved whole."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from pair_trainer import POLICY, pair_trainer, render_answers
from peft import LoraConfig
from transformers import PreTrainedModel
from trl import ModelConfig

from trl_hybrid.errors import InputError
from trl_hybrid.evaluation.cold_start import check_samples
from trl_hybrid.recipe.answer_pairs import answer_groups, make_lesson, scored_groups
from trl_hybrid.recipe.pair_options import PairArguments
from trl_hybrid.recipe.reward_trainer import (
    check_scores_of_saved,
    merge_adapter,
    padding_token,
    score_adapter_config,
    scores_in_memory,
)
from trl_hybrid.reward_model import RewardModel
from trl_hybrid.reward_model.loading import Source, load_tokenizer
from trl_hybrid.runs.folder import BEING_WRITTEN


RIGHT, WRONG = "The answer is \\boxed{42}.", "So \\boxed{41}."
ROWS_OF_IDS = [(5, 6, 7), (9, 10)]
LONG = "2 + 0 = 2. 1 + 3 = 4. The answer is \\boxed{43}."
# As Llama 3's: a row ends with the token that ends a turn, with which TRL would pad where there is no other.
TEMPLATE = "{% for turn in messages %}<|{{ turn['role'] }}|>{{ turn['content'] }}{{ eos_token }}{% endfor %}"


def sample(text, correct, truncated=False, answer=None):
    return {"completion": text, "correct": correct, "truncated": truncated, "answer": answer, "boxed": True}


ROWS = [
    {
        "prompt": [{"role": "user", "content": f"What is 12 + {number}?"}],
        "solution": "42",
        "samples": [sample(RIGHT, True, answer="42"), sample(WRONG, False), sample(LONG, False, truncated=True)],
    }
    for number in range(30, 34)
]


@pytest.fixture(scope="module")
def rendered():
    """The renderer, and the answers to all problems as it reads them."""
    tokenizer = load_tokenizer(Source(POLICY))
    tokenizer.chat_template = TEMPLATE
    return render_answers(tokenizer, ROWS)


def make_trainer(folder, rendered, peft_config=None, **settings):
    settings = {"per_device_train_batch_size": 4, "logging_strategy": "no", **settings}
    return pair_trainer(folder, *rendered, settings, peft_config=peft_config)


def test_the_row_is_the_scorers_own(rendered):
    _, groups = rendered
    scorer = RewardModel("data/embedded_reward_model").renderer
    theirs = scorer.render([ROWS[0]["prompt"]] * 3, [RIGHT, WRONG, LONG], [False, False, True])
    ours = answer_groups(ROWS[:1], scorer)[0]
    assert [answer.ids for answer in ours] == [row.ids for row in theirs]
    assert [answer.right for answer in ours] == [True, False, False]
    closing = load_tokenizer(Source(POLICY)).eos_token_id
    assert [group[0].ids[-1] for group in groups] == [closing] * 4  # closed by the template
    assert groups[0][2].ids[-1] != closing  # cut off, and left open


@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "lora"])
def test_what_is_trained_is_what_is_saved_and_scored(rendered, lora, tmp_path):
    """Rows of several lengths in a batch are read at their last tokens, as alone, before training and after."""
    config = score_adapter_config(ModelConfig(POLICY, use_peft=True, lora_r=4)) if lora else None
    trainer = make_trainer(tmp_path, rendered, config)
    rows = [answer.ids for group in rendered[1] for answer in group]
    alone = scores_in_memory(trainer, rows)
    batch = trainer.data_collator([dict(trainer.train_dataset[place]) for place in range(4)])
    with torch.no_grad():
        together = trainer.model.eval()(**batch).logits[:, 0].tolist()
    by_row = dict(zip(rows, alone, strict=True))
    ids = [tuple(row[mask.bool()].tolist()) for row, mask in zip(*batch.values(), strict=True)]
    assert together == pytest.approx([by_row[row] for row in ids], abs=1e-5)

    trainer.train()
    trained = scores_in_memory(trainer, rows)
    assert trained != pytest.approx(alone, abs=1e-2)
    trainer.save_model()
    if lora:
        merge_adapter(tmp_path, "float32")
    saved = RewardModel(str(tmp_path))
    assert not (tmp_path / "adapter_config.json").exists()
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["LlamaForSequenceClassification"]
    assert saved.backend.score(rows) == pytest.approx(trained, abs=1e-4)
    groups, answers = scored_groups(ROWS, saved)
    assert answers == 12
    assert [score for group in groups for score in group.scores] == pytest.approx(trained, abs=1e-4)
    assert [group.votes for group in groups] == [[1, 0, 0]] * 4
    assert [group.whole for group in groups] == [[True, True, False]] * 4
    assert [length for group in groups for length in group.lengths] == [len(row) for row in rows]

    # Answers from a file need not say what was read from them.
    bare = [{**row, "samples": [{**one} for one in row["samples"]]} for row in ROWS[:1]]
    for one in bare[0]["samples"]:
        del one["answer"]
    check_samples(bare, "mine.jsonl")
    assert scored_groups(bare, saved)[0][0].votes == [0, 0, 0]

    check_scores_of_saved(tmp_path, saved, rows, trained)
    with pytest.raises(InputError, match="must score as the trained one"):
        check_scores_of_saved(tmp_path, saved, rows, [score + 1.0 for score in trained])
    with pytest.raises(InputError, match="lower learning_rate"):
        check_scores_of_saved(tmp_path, saved, rows, [float("nan")])


def test_a_full_disk_leaves_the_adapter_and_a_later_merge_what_it_makes(rendered, tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, rendered, score_adapter_config(ModelConfig(POLICY, use_peft=True, lora_r=4)))
    trainer.save_model()
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json"):  # of an earlier, larger model
        (tmp_path / name).write_bytes(b"")
    adapter = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def cut_off(model, folder, **kwargs):
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(PreTrainedModel, "save_pretrained", cut_off)
        with pytest.raises(OSError, match="No space left"):
            merge_adapter(tmp_path, "float32")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == adapter

    (tmp_path / BEING_WRITTEN).mkdir()
    (tmp_path / BEING_WRITTEN / "model.safetensors").write_bytes(b"of a run that was killed")
    merge_adapter(tmp_path, "float32")
    left = {file.name for file in tmp_path.iterdir()}
    assert {name for name in left if "model" in name and "safetensors" in name} == {"model.safetensors"}
    assert not left & {"adapter_config.json", BEING_WRITTEN}
    assert RewardModel(str(tmp_path)).backend.score(ROWS_OF_IDS) == pytest.approx(
        scores_in_memory(trainer, ROWS_OF_IDS), abs=1e-4
    )


def test_what_was_trained_in_mixed_precision_is_compared_without_it(rendered, tmp_path):
    trainer = make_trainer(tmp_path, rendered, bf16=True)
    rows = [answer.ids for group in rendered[1] for answer in group]
    trainer.train()
    trained = scores_in_memory(trainer, rows)
    trainer.save_model()
    assert RewardModel(str(tmp_path)).backend.score(rows) == pytest.approx(trained, abs=1e-5)


def test_padding_ends_no_row(rendered):
    tokenizer = load_tokenizer(Source(POLICY))
    end = tokenizer.eos_token_id
    assert tokenizer.pad_token is None
    assert tokenizer.convert_tokens_to_ids(padding_token(tokenizer, [end, 7])) not in (end, 7)
    tokenizer.pad_token = tokenizer.eos_token
    assert padding_token(tokenizer, [7]) == tokenizer.eos_token
    with pytest.raises(InputError, match="padding token that ends no row"):
        padding_token(tokenizer, range(len(tokenizer)))


def test_an_adapter_is_a_classifiers_and_trains_the_head_whole():
    config = score_adapter_config(
        ModelConfig("some/model", "v1", use_peft=True, lora_modules_to_save=["embed_tokens"])
    )
    assert isinstance(config, LoraConfig)
    assert (config.task_type, config.modules_to_save, config.revision) == ("SEQ_CLS", ["embed_tokens", "score"], "v1")
    assert score_adapter_config(ModelConfig("some/model")) is None


def test_a_gold_stands_in_where_no_answer_is_right(rendered):
    renderer, _ = rendered
    wrong = [{**row, "samples": row["samples"][1:]} for row in ROWS]
    assert [answer.right for answer in answer_groups(wrong[:1], renderer)[0]] == [False, False]
    with_gold = answer_groups([*wrong[:1], *ROWS[1:2], {**ROWS[2], "samples": []}], renderer, gold_as_right=True)
    assert [[answer.right for answer in group] for group in with_gold] == [
        [False, False, True],
        [True, False, False],
        [],
    ]
    assert "\\boxed{42}" in renderer.tokenizer.decode(with_gold[0][2].ids)


def test_a_lesson_counts_what_is_learned_and_keeps_problems_aside(rendered):
    """One of 4 problems is held out; each has 2 pairs: the wrong answer shorter, and longer by more than twice that.

    So no pair has one that balances it.
    """
    renderer, _ = rendered
    lesson = make_lesson(ROWS, renderer, PairArguments(held_out_share=0.25, balance_length=False), seed=0)
    assert lesson.counts == {
        "problems": 4, "held_out": 1, "answers": 9, "with_both": 3, "pairs": 6, "left_out_by_length": 0,
    }  # fmt: skip
    (aside,) = answer_groups(lesson.held_out, renderer)
    assert lesson.rows[:3] == [answer.ids for answer in aside]
    assert all(answer not in (pair.better, pair.worse) for pair in lesson.pairs for answer in aside)
    with pytest.raises(InputError, match=r"In all of 6 pairs .*--balance_length false"):
        make_lesson(ROWS, renderer, PairArguments(held_out_share=0.25), seed=0)
    all_right = [{**row, "samples": row["samples"][:1]} for row in ROWS]
    with pytest.raises(InputError, match=r"of 2 problems none has both .*--gold_as_right true"):
        make_lesson(all_right, renderer, PairArguments(held_out_share=0.5), seed=0)


@pytest.mark.parametrize(
    ("setting", "rule"),
    [
        ({"temperatures": [0.0, 1.0]}, r"temperatures must be one or more numbers above 0; got \[0.0, 1.0\]"),
        ({"temperatures": []}, "temperatures must be"),
        ({"held_out_share": 1.0}, "held_out_share must be between 0 and 1; got 1.0"),
        ({"pairs_per_problem": 0}, "pairs_per_problem must be 1 or more; got 0"),
    ],
)
def test_settings_out_of_range_are_refused_before_the_answering(setting, rule):
    with pytest.raises(InputError, match=rule):
        PairArguments(**setting)
