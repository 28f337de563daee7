import copy
import json
import logging
import math
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from transformers import BloomConfig, BloomForSequenceClassification

from trl_hybrid.reward_model import AceRewardModel, RewardModel
from trl_hybrid.reward_model import backend as backend_module
from trl_hybrid.reward_model import scorer as scorer_module
from trl_hybrid.reward_model.backend import BackendOptions, load_backend
from trl_hybrid.reward_model.footprint import Need
from trl_hybrid.reward_model.forwards import PackedForward
from trl_hybrid.reward_model.loading import Source


ACE_PROMPT = "Please reason step by step, and check your final answer within \\boxed{}."
PROMPTS = ["What is 2 + 2?", "Name a prime number above ten, and say why it is one."]
COMPLETIONS = ["4", "The answer is \\boxed{4}. " * 9, "", "  eleven \n\n", "4", "Ünïcödé ✓"]


@pytest.fixture
def scorer(qwen2):
    return RewardModel(qwen2.path)


def recorded(monkeypatch, name, module=scorer_module):
    """What a part of the reward model's making is called with, while it does its work."""
    calls, original = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *given: calls.append(given) or original(*given))
    return calls


@pytest.mark.parametrize(
    ("family", "tokenizer"),
    [
        ("qwen2", {}),
        ("qwen3", {"padding_side": "left"}),
        ("llama", {"template": "trimming", "eos": "<|eot|>", "pad": "<|eot|>", "adds_bos": True}),
        ("qwen2", {"pad": "<|im_end|>", "padding_side": "left"}),
    ],
)
def test_scores_equal_plain_transformers_row_by_row(save_model, family, tokenizer):
    saved = save_model(family, **tokenizer)
    prompts = [prompt for prompt in PROMPTS for _ in COMPLETIONS]
    completions = COMPLETIONS * len(PROMPTS)
    expected = [saved.score(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
    assert len({round(score, 3) for score in expected}) == 10  # the two 4s are one row each
    scores = RewardModel(saved.path)(prompts, completions)
    assert scores == pytest.approx(expected, abs=1e-5)


def test_pad_equal_to_eos_does_not_move_the_scored_position(save_model):
    saved = save_model("llama", template="bare", pad="<|im_end|>")
    expected = [saved.score("Q", completion) for completion in COMPLETIONS]
    assert RewardModel(saved.path).compute_batch_reward("Q", COMPLETIONS) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("token_budget", [1, 90, 100_000])
def test_budget_changes_no_score(qwen2, token_budget):
    expected = [qwen2.score("Q", completion) for completion in COMPLETIONS]
    scores = RewardModel(qwen2.path, token_budget=token_budget).compute_batch_reward("Q", COMPLETIONS)
    assert scores == pytest.approx(expected, abs=1e-5)


def test_equal_rows_are_computed_once_and_remembered(qwen2, monkeypatch):
    scorer = RewardModel(qwen2.path)
    computed = []
    score = scorer.backend.score
    monkeypatch.setattr(scorer.backend, "score", lambda rows: computed.append(len(rows)) or score(rows))
    first = scorer(["Q"] * 4, ["a", "b", "a", "a"])
    again = scorer(["Q"] * 2, ["c", "b"])
    assert computed == [2, 1]
    assert first[0] == first[2] == first[3]
    assert again[1] == first[1]


def test_saved_scores_are_given_again_to_the_last_bit(qwen2, caplog):
    scorer = RewardModel(qwen2.path)
    scores = scorer.compute_batch_reward("Q", COMPLETIONS)
    resumed = RewardModel(qwen2.path)
    resumed.load_state_dict(json.loads(json.dumps(scorer.state_dict())))
    assert [resumed.compute_reward("Q", completion) for completion in COMPLETIONS] == scores
    with caplog.at_level(logging.WARNING):
        resumed.load_state_dict({"model": [qwen2.path, None, "torch.bfloat16"], "scores": {}})
    saved, own = [qwen2.path, None, "torch.bfloat16"], [qwen2.path, None, "torch.float32"]
    assert caplog.messages[-1].startswith(
        f"The saved scores are of the reward model {saved} and not taken over by {own}"
    )
    assert len(resumed.cache) == len(set(scores))


@pytest.mark.parametrize("other", [{"revision": "v1"}, {"dtype": "bfloat16"}])
def test_scores_of_another_revision_or_number_type_are_not_taken_over(qwen2, caplog, other):
    scorer = RewardModel(qwen2.path)
    scorer.compute_batch_reward("Q", COMPLETIONS)
    resumed = RewardModel(qwen2.path, **other)  # in a folder a revision is a name and nothing else
    remembered = len(resumed.cache)
    with caplog.at_level(logging.WARNING):
        resumed.load_state_dict(scorer.state_dict())
    assert "not taken over" in caplog.text
    assert len(resumed.cache) == remembered
    same = RewardModel(qwen2.path, **other)
    same.load_state_dict(resumed.state_dict())
    assert len(same.cache) == remembered


def test_scores_of_other_weights_under_the_same_name_are_not_taken_over(qwen2, tmp_path, caplog):
    folder = shutil.copytree(qwen2.path, tmp_path / "rm")
    before = RewardModel(str(folder))
    old = before.compute_reward("Q", COMPLETIONS[0])
    state = json.loads(json.dumps(before.state_dict()))
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"score.weight": -weights["score.weight"]}, folder / "model.safetensors", {"format": "pt"})
    trained_again = RewardModel(str(folder))
    with caplog.at_level(logging.WARNING):
        trained_again.load_state_dict(state)
    assert "is not the one that it was" in caplog.text
    assert trained_again.compute_reward("Q", COMPLETIONS[0]) == pytest.approx(-old)

    del state["first_scores"]  # as earlier versions saved it
    trained_again.load_state_dict(state)
    assert trained_again.compute_reward("Q", COMPLETIONS[0]) == old


def test_weights_whose_scores_are_not_finite_are_known_again_by_name(qwen2, tmp_path, caplog):
    folder = shutil.copytree(qwen2.path, tmp_path / "rm")
    weights = load_file(folder / "model.safetensors")
    broken = weights | {"score.weight": weights["score.weight"] * math.nan}
    save_file(broken, folder / "model.safetensors", {"format": "pt"})
    state = json.loads(json.dumps(RewardModel(str(folder)).state_dict()))
    state["scores"] = {"00" * 16: 1.5}
    again = RewardModel(str(folder))
    again.load_state_dict(state)
    assert again.state_dict()["scores"] == {"00" * 16: 1.5}
    assert "is not the one that it was" not in caplog.text


@pytest.mark.parametrize("error", [1e-5, 1e-2])
def test_scores_that_differ_in_a_batch_by_a_hundredth_are_refused(qwen2, monkeypatch, error):
    class Careless:
        """Each further row of a batch moves its scores."""

        def __init__(self, backend):
            self.backend = backend

        def score(self, rows):
            return [score + error * len(rows) for score in self.backend.score(rows)]

    monkeypatch.setattr(scorer_module, "load_backend", lambda *given: Careless(load_backend(*given)))
    if error == 1e-5:
        RewardModel(qwen2.path)
        return
    with pytest.raises(ValueError, match="alike in a batch and alone"):
        RewardModel(qwen2.path)


def test_cut_off_completion_is_not_closed(scorer, qwen2):
    messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "one two"}]
    closed = qwen2.ids(messages)
    closing = qwen2.tokenizer("<|im_end|>\n", add_special_tokens=False)["input_ids"]
    assert closed[-2:] == closing
    scores = scorer(["Q"] * 2, ["one two"] * 2, completion_truncated=[True, False])
    assert scores == pytest.approx([qwen2.score_ids(closed[:-2]), qwen2.score_ids(closed)], abs=1e-5)
    assert abs(scores[0] - scores[1]) > 1e-2


def test_text_messages_and_blocks_score_alike(scorer):
    as_text = scorer.compute_reward("Q", "A")
    as_messages = scorer.compute_reward([{"role": "user", "content": "Q"}], [{"role": "assistant", "content": "A"}])
    blocks = [{"role": "user", "content": [{"type": "text", "text": "Q"}]}]
    assert as_text == as_messages == scorer.compute_reward(blocks, "A")


def test_policys_system_prompt_never_reaches_the_reward_model(scorer):
    user = {"role": "user", "content": "Q"}
    told = [{"role": "system", "content": "Answer in <answer> tags."}, user]
    assert scorer.compute_reward(told, "A") == scorer.compute_reward([user], "A")


def test_earlier_turns_reach_the_reward_model(scorer, qwen2):
    turns = [
        {"role": "user", "content": "Q1"},
        {"role": "assistant", "content": "A1"},
        {"role": "user", "content": "Q2"},
    ]
    expected = qwen2.score_ids(qwen2.ids([*turns, {"role": "assistant", "content": "A2"}]))
    assert scorer.compute_reward(turns, "A2") == pytest.approx(expected, abs=1e-5)


def test_own_system_prompt_is_rendered(qwen2):
    scorer = RewardModel(qwen2.path, system_prompt="Be strict.")
    assert scorer.compute_reward("Q", "A") == pytest.approx(qwen2.score("Q", "A", "Be strict."), abs=1e-5)


def test_ace_uses_its_cards_system_prompt(qwen2):
    assert AceRewardModel(qwen2.path).compute_reward("Q", "A") == pytest.approx(
        qwen2.score("Q", "A", ACE_PROMPT), abs=1e-5
    )


def test_ace_may_be_told_another_system_prompt_and_all_else_that_a_reward_model_may(qwen2):
    scorer = AceRewardModel(qwen2.path, system_prompt="Be strict.", max_length=100)
    assert scorer.compute_reward("Q", "A") == pytest.approx(qwen2.score("Q", "A", "Be strict."), abs=1e-5)
    assert scorer.renderer.max_length == 100
    for prompt, rendered in (("preset", ACE_PROMPT), (None, None)):
        scorer = AceRewardModel(qwen2.path, system_prompt=prompt)
        assert scorer.compute_reward("Q", "A") == pytest.approx(qwen2.score("Q", "A", rendered), abs=1e-5)


def test_ace_is_nvidias_of_7b_where_no_other_is_named(monkeypatch):
    class Asked(Exception):
        pass

    def load_config(source):
        raise Asked(source.name)

    monkeypatch.setattr(scorer_module, "load_config", load_config)
    with pytest.raises(Asked, match=r"^nvidia/AceMath-7B-RM$"):
        AceRewardModel()


def test_a_published_model_for_maths_must_prefer_a_solution_and_a_folder_need_not(qwen2, tmp_path, monkeypatch):
    class Backwards:
        def score(self, rows):
            return [-float(len(row)) for row in rows]

    scorer = RewardModel(qwen2.path)
    scorer.backend = Backwards()
    scorer.preflight()
    scorer.model_name_or_path = "my/own-model"
    scorer.preflight()
    scorer.model_name_or_path = "nvidia/AceMath-7B-RM"
    with pytest.raises(ValueError, match=r"must prefer a worked solution .* but 'nvidia/AceMath-7B-RM' gives"):
        scorer.preflight()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nvidia" / "AceMath-7B-RM").mkdir(parents=True)
    scorer.preflight()


@pytest.fixture
def copy_of_ace(qwen2, tmp_path):
    """A folder with weights and a card that names their licence."""
    shutil.copytree(qwen2.path, tmp_path / "ace")
    (tmp_path / "ace" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# AceMath\n")
    return str(tmp_path / "ace")


def test_the_licence_that_a_folders_card_names_is_told_once(copy_of_ace, caplog):
    with caplog.at_level(logging.WARNING):
        AceRewardModel(copy_of_ace)
        RewardModel(copy_of_ace)
    assert sum("CC-BY-NC-4.0" in record.message for record in caplog.records) == 1


def test_no_licence_is_claimed_for_a_folder_without_a_card(qwen2, caplog):
    with caplog.at_level(logging.WARNING):
        AceRewardModel(qwen2.path)
    assert "licensed" not in caplog.text


def test_of_several_processes_one_tells_the_licence(copy_of_ace, caplog, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with caplog.at_level(logging.WARNING):
        AceRewardModel(copy_of_ace)
    assert "CC-BY-NC-4.0" not in caplog.text


def test_local_copy_of_a_known_model_takes_its_preset(qwen2, tmp_path):
    copy_of_ace = tmp_path / "AceMath-7B-RM"
    copy_of_ace.symlink_to(qwen2.path)
    scorer = RewardModel(str(copy_of_ace))
    assert scorer.compute_reward("Q", "A") == pytest.approx(qwen2.score("Q", "A", ACE_PROMPT), abs=1e-5)
    assert RewardModel(str(copy_of_ace), system_prompt=None).compute_reward("Q", "A") == pytest.approx(
        qwen2.score("Q", "A"), abs=1e-5
    )


def test_prompt_can_be_one_for_all_or_one_each(scorer):
    one = scorer.compute_batch_reward("Q", ["a", "b"])
    assert one == scorer.compute_batch_reward(["Q", "Q"], ["a", "b"])
    assert one == scorer.compute_batch_reward([{"role": "user", "content": "Q"}], ["a", "b"])
    assert one == scorer.compute_batch_reward([[{"role": "user", "content": "Q"}]] * 2, ["a", "b"])
    assert scorer.compute_batch_reward("Q", []) == []


def test_unequal_numbers_are_refused(scorer):
    with pytest.raises(ValueError, match="2 prompts, 1 completions and 1 marks"):
        scorer(["Q", "Q"], ["A"])


def test_long_row_is_shortened_and_counted(qwen2):
    scorer = RewardModel(qwen2.path, max_length=64)
    metrics = {}
    scores = scorer(["Q"] * 2, ["x" * 200 + "the end", "short"], log_metric=metrics.__setitem__)
    assert metrics == {"reward_model/truncated_rows": 1.0, "reward_model/nonfinite_rows": 0.0}
    head = qwen2.ids([{"role": "user", "content": "Q"}]) + qwen2.tokenizer("<|im_start|>assistant\n")["input_ids"]
    whole = qwen2.ids([{"role": "user", "content": "Q"}, {"role": "assistant", "content": "x" * 200 + "the end"}])
    assert scores[0] == pytest.approx(qwen2.score_ids(head + whole[len(head) - 64 :]), abs=1e-5)


def test_model_positions_bound_the_row(scorer, qwen2):
    assert scorer.renderer.max_length == 512
    assert math.isfinite(scorer.compute_reward("Q", "x" * 2000))
    assert RewardModel(qwen2.path, max_length=600).renderer.max_length == 512


def test_a_model_whose_positions_have_no_end_takes_rows_of_any_length(qwen2, tmp_path):
    qwen2.tokenizer.save_pretrained(tmp_path)
    config = BloomConfig(vocab_size=len(qwen2.tokenizer), hidden_size=16, n_layer=1, n_head=2, num_labels=1)
    BloomForSequenceClassification(config).save_pretrained(tmp_path)
    assert RewardModel(str(tmp_path)).renderer.max_length is None
    assert RewardModel(str(tmp_path), max_length=64).renderer.max_length == 64


@pytest.mark.parametrize(("given", "source"), [
    ({}, (None, False)), ({"revision": "v1"}, ("v1", False)), ({"trust_remote_code": True}, (None, True)),
])  # fmt: skip
def test_every_part_is_loaded_from_the_same_revision_and_by_the_repositorys_code_only_if_that_may_run(
    qwen2, monkeypatch, given, source
):
    parts = [recorded(monkeypatch, name) for name in ("load_config", "load_tokenizer", "load_backend")]
    placed = recorded(monkeypatch, "resolve_placement", backend_module)
    RewardModel(qwen2.path, **given)
    assert [calls[0][0] for calls in parts] == [Source(qwen2.path, *source)] * 3
    trusted = placed[0][6]
    assert trusted is source[1]


def test_what_the_placement_is_chosen_by_is_handed_on(qwen2, tmp_path, monkeypatch):
    folder = shutil.copytree(qwen2.path, tmp_path / "half")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))
    placed = recorded(monkeypatch, "resolve_placement", backend_module)
    monkeypatch.setattr(scorer_module, "load_backend", lambda source, config, options, samples: options)
    monkeypatch.setattr(RewardModel, "preflight", lambda model: None)
    assert RewardModel(str(folder), device="cpu").placement == "cpu"
    assert placed[0][:2] + placed[0][3:] == ("auto", torch.device("cpu"), None, None, 0, False, None)
    own, need, quantization = {"zero_optimization": {"stage": 3}}, Need(1, 2), object()
    chosen = RewardModel(
        str(folder), device="cuda:1", placement="zero3", dtype="auto", token_budget=77, reserved_memory=need,
        deepspeed_config=own,
    ).backend  # fmt: skip
    assert placed[1][:2] + placed[1][3:] == ("zero3", torch.device("cuda:1"), torch.float16, 77, need, False, own)
    assert chosen == BackendOptions(
        "zero3", torch.device("cuda:1"), "auto", torch.float16, token_budget=77, deepspeed_config=own
    )
    chosen = RewardModel(str(folder), device="cuda:1", quantization_config=quantization).backend
    assert chosen == BackendOptions(
        "resident", torch.device("cuda:1"), None, torch.float16, quantization_config=quantization
    )


def test_nan_weights_give_nan_and_are_counted(qwen2, caplog):
    scorer = RewardModel(qwen2.path)
    scorer.backend.forward.head.weight.fill_(math.nan)
    metrics = {}
    with caplog.at_level(logging.WARNING):
        scores = scorer(["Q"] * 2, ["a", "b"], log_metric=metrics.__setitem__)
    assert all(map(math.isnan, scores))
    assert metrics["reward_model/nonfinite_rows"] == 2.0
    expected = f"The reward model {qwen2.path!r} gave 2 of 2 scores that are not finite"
    assert any(message.startswith(expected) for message in caplog.messages)


def test_head_is_fp32_while_the_body_is_bf16(qwen2):
    scorer = RewardModel(qwen2.path, dtype="bfloat16")
    assert isinstance(scorer.backend.forward, PackedForward)
    assert next(scorer.backend.forward.body.parameters()).dtype == torch.bfloat16
    assert scorer.backend.forward.head.weight.dtype == torch.float32
    scores = scorer.compute_batch_reward("Q", COMPLETIONS)
    assert any(score != torch.tensor(score).bfloat16().item() for score in scores)
    expected = [qwen2.score("Q", completion) for completion in COMPLETIONS]
    assert scores == pytest.approx(expected, abs=0.5)


def test_is_no_module_and_shares_its_weights_with_copies(scorer):
    assert not isinstance(scorer, torch.nn.Module)
    assert copy.deepcopy({"judge": scorer})["judge"] is scorer
    assert scorer.__name__ == "reward_model"
    assert repr(scorer) == f"RewardModel({scorer.model_name_or_path!r})"
    assert not any(parameter.requires_grad for parameter in scorer.backend.forward.body.parameters())
    assert not scorer.backend.forward.head.weight.requires_grad
    assert not scorer.backend.forward.body.training


def test_unknown_dtype_is_refused(qwen2):
    with pytest.raises(ValueError, match="but got 'int8'"):
        RewardModel(qwen2.path, dtype="int8")


def test_default_device_is_the_launchs(qwen2):
    made_before = bool(PartialState._shared_state)
    scorer = RewardModel(qwen2.path)
    assert scorer.backend.device.type == (torch.accelerator.current_accelerator() or torch.device("cpu")).type
    assert bool(PartialState._shared_state) == made_before


def test_config_of_the_folder_is_left_alone(qwen2):
    before = json.loads((Path(qwen2.path) / "config.json").read_text())
    RewardModel(qwen2.path).compute_reward("Q", "A")
    assert json.loads((Path(qwen2.path) / "config.json").read_text()) == before
