"""The update with shared prompts against TRL's own: the same log-probabilities, gradients and steps."""

import logging
import math

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from trl_hybrid import HybridGRPOConfig, HybridGRPOTrainer
from trl_hybrid.packing import attention
from trl_hybrid.training import shared_prompts
from trl_hybrid.training.shared_prompts import distance, why_not, without_dropout


POLICY = "data/embedded_policy"
LORA = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
SHAPE = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
         "num_attention_heads": 2, "num_key_value_heads": 1}  # fmt: skip


def variety(completions, completion_ids, **kwargs):
    """A reward that differs within every group, and needs no judge."""
    return [math.sin(sum(ids)) for ids in completion_ids]


def make_trainer(folder, model=POLICY, peft_config=None, **changes):
    settings = {
        "num_generations": 4,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_completion_length": 24,
        "max_steps": 1,
        # A step is its gradient: so long that the weights' own rounding is nothing beside it.
        "optim": "sgd",
        "learning_rate": 1e4,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1e9,
        "gradient_checkpointing": False,
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_steps": 1,
    }
    args = HybridGRPOConfig(str(folder), **{**settings, **changes})
    prompts = [[{"role": "user", "content": f"What is {i} + {i * 37}?"}] for i in range(8)]
    return HybridGRPOTrainer(
        model, variety, args, train_dataset=Dataset.from_dict({"prompt": prompts}), peft_config=peft_config
    )


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters() if p.requires_grad]).double()


def step(folder, **changes):
    """Train, and return the trainer with the way that its weights went."""
    trainer = make_trainer(folder, **changes)
    start = weights(trainer)
    trainer.train()
    trainer.way = weights(trainer) - start
    return trainer


def apart(trainer, other):
    """The share of the way by which two trainers went apart."""
    assert other.way.norm() > 0
    return ((trainer.way - other.way).norm() / other.way.norm()).item()


def logged(trainer, name):
    return [row[name] for row in trainer.state.log_history if name in row]


SAME_GRADIENT = {
    "dapo": {},
    "grpo": {"loss_type": "grpo"},
    "bnpo": {"loss_type": "bnpo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "cispo": {"loss_type": "cispo", "epsilon_high": 5.0},
    "sapo": {"loss_type": "sapo"},
    "luspo": {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    "vespo": {"loss_type": "vespo"},
    "gspo": {"importance_sampling_level": "sequence", "loss_type": "grpo"},
    "KL to a reference": {"beta": 0.5},
    "the tokens of high entropy": {"top_entropy_quantile": 0.5},
    "an entropy bonus": {"entropy_coef": 0.1},
    "gradient checkpointing": {"gradient_checkpointing": True},
    "an adapter": {"peft_config": LORA},
    "an adapter, KL, checkpointing": {"peft_config": LORA, "beta": 0.5, "gradient_checkpointing": True},
    "groups that do not fit": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
    "a micro-batch that groups do not fill": {
        "per_device_train_batch_size": 3, "gradient_accumulation_steps": 4, "steps_per_generation": 4
    },
    "truncated answers masked": {"mask_truncated_completions": True},
    "generations longer than a step": {"steps_per_generation": 4, "generation_batch_size": None},
}  # fmt: skip


@pytest.mark.parametrize("changes", SAME_GRADIENT.values(), ids=SAME_GRADIENT)
def test_an_optimizer_step_is_trls(tmp_path, changes):
    theirs = step(tmp_path, shared_prompts=False, **changes)
    ours = step(tmp_path, **changes)
    assert ours.shares_prompts
    assert apart(ours, theirs) < 1e-5
    assert logged(ours, "loss") == pytest.approx(logged(theirs, "loss"), rel=1e-4, abs=1e-5)
    # Means of the means of micro-batches, which hold other rows.
    for name in ("entropy", "kl"):
        assert logged(ours, name) == pytest.approx(logged(theirs, name), rel=0.05)


def test_several_iterations_on_one_generation_go_the_same_way(tmp_path):
    changes = {"num_iterations": 2, "max_steps": 4, "learning_rate": 0.1}
    ours, theirs = step(tmp_path, **changes), step(tmp_path, shared_prompts=False, **changes)
    assert apart(ours, theirs) < 1e-4
    assert max(logged(theirs, "clip_ratio/region_mean")) > 0  # the old policy's log-probabilities matter


def gradient(trainer, batches, shares):
    """The gradient of an optimizer step over micro-batches that were made before."""
    trainer.shares_prompts = shares
    trainer.current_gradient_accumulation_steps = len(batches)
    trainer.model.train()
    trainer.model.zero_grad()
    for batch in batches:
        trainer._compute_loss(trainer.model, batch).backward()
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters()]).double()


def test_half_precision_is_no_further_from_the_truth_than_trl_is(tmp_path):
    whole, half = make_trainer(tmp_path), make_trainer(tmp_path, bf16=True)
    whole.train()
    batches = whole._buffered_inputs
    whole = make_trainer(tmp_path)
    truth = gradient(whole, batches, shares=False)
    errors = {
        shares: ((gradient(half, batches, shares) - truth).norm() / truth.norm()).item() for shares in (True, False)
    }
    assert 1e-3 < errors[True] < 1.5 * errors[False] < 0.2
    # The two ways of one row are told apart by far less than a token that is seen wrongly makes.
    half.shares_prompts = None
    half.train()
    assert half.shares_prompts


def test_a_step_whose_answers_are_all_masked_goes_nowhere(tmp_path):
    trainer = step(tmp_path, mask_truncated_completions=True, max_completion_length=2)
    assert trainer.shares_prompts
    assert not trainer.way.any()


def test_each_prompt_is_computed_once_a_micro_batch_and_no_padding(tmp_path, monkeypatch):
    seen = []
    lay_out = shared_prompts.lay_out
    monkeypatch.setattr(shared_prompts, "lay_out", lambda *args: seen.append(args[0]) or lay_out(*args))
    tokens = []
    trainer = make_trainer(tmp_path)
    trainer.model.model.embed_tokens.register_forward_hook(lambda module, ids, out: tokens.append(ids[0].shape))
    trainer.model.train()
    trainer.train()
    assert len(seen) == 3  # the first batch's comparison, and two micro-batches
    for rows in seen[1:]:
        assert len({tuple(prompt) for prompt, _ in rows}) == 1  # whole groups
        computed = len(rows[0][0]) - 1 + sum(len(completion) for _, completion in rows)
        assert (1, computed) in tokens


def test_what_is_asked_for_is_trls_for_every_row(tmp_path):
    trainer = make_trainer(tmp_path)
    ids = torch.randint(4, 40, (6, 12), generator=torch.Generator().manual_seed(0))
    ids[[1, 2, 4], :5] = ids[0, :5]
    mask = torch.ones_like(ids)
    mask[:, :2] = 0  # prompts of three tokens, padded on the left
    for row, length in enumerate((7, 1, 4, 0, 2, 7)):
        mask[row, 5 + length :] = 0
    trainer.model.eval()
    with torch.no_grad():
        expected = trainer._plainly(trainer.model, ids, mask, 7, None, True)
        found = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, 7, 4, True)
    assert trainer.shares_prompts
    for mine, theirs in zip(found[:2], expected[:2], strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
        assert (mine[mask[:, 5:] == 0] == 0).all()


def test_generation_attends_as_before(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(POLICY)
    ids = torch.arange(4, 14)[None]
    before = model(ids).logits
    assert attention.let_segments_through("sdpa")
    assert torch.equal(model(ids).logits, before)


def test_off_by_one_word_it_is_trl_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_prompts, "lay_out", lambda *args: pytest.fail("rows were packed"))
    trainer = step(tmp_path, shared_prompts=False)
    assert trainer.shares_prompts is False


def leaky(module, query, key, value, mask, scaling=None, packing=None, **more):
    """Attention that lets every token see all before it in the packed row."""
    out = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling, enable_gqa=True
    )
    return out.transpose(1, 2), None


def broken(*args, **more):
    raise RuntimeError("no kernel for this")


def not_a_number(module, query, *args, **more):
    return torch.full_like(query, math.nan).transpose(1, 2), None


@pytest.mark.parametrize(
    ("kernel", "said"),
    [(leaky, "apart (root mean square"), (broken, "no kernel for this"), (not_a_number, "are inf apart")],
)
def test_a_first_batch_that_is_not_trls_is_said_and_trls_way_is_taken(tmp_path, monkeypatch, caplog, kernel, said):
    theirs = step(tmp_path, shared_prompts=False)
    monkeypatch.setattr(attention, "packed_attention", kernel)
    with caplog.at_level(logging.WARNING):
        ours = step(tmp_path)
    assert ours.shares_prompts is False
    assert said in caplog.text
    assert caplog.text.count("Each prompt is computed once a completion instead") == 1
    assert apart(ours, theirs) < 1e-5


def test_dropout_in_the_adapter_does_not_look_like_a_difference(tmp_path):
    trainer = make_trainer(tmp_path, peft_config=LoraConfig(r=4, lora_dropout=0.5, init_lora_weights=False))
    trainer.train()
    assert trainer.shares_prompts


def test_every_module_is_in_the_mode_that_it_was_in(tmp_path):
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Dropout(0.5)).train()
    model[1].eval()
    with without_dropout(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == [True, True, False]


def test_where_it_cannot_work_it_is_said_once_and_trls_way_is_taken(tmp_path, caplog):
    eager = {"model_init_kwargs": {"attn_implementation": "eager"}}
    theirs = step(tmp_path, shared_prompts=False, **eager)
    with caplog.at_level(logging.WARNING):
        ours = step(tmp_path, **eager)
    assert caplog.text.count("shared_prompts: each prompt is computed once a completion, since attn_implem") == 1
    assert torch.equal(ours.way, theirs.way)


def test_policies_that_it_cannot_serve_are_told_apart():
    assert why_not(LlamaForCausalLM(LlamaConfig(**SHAPE))) is None
    assert why_not(get_peft_model(LlamaForCausalLM(LlamaConfig(**SHAPE)), LoraConfig(r=2))) is None
    dropout = LlamaForCausalLM(LlamaConfig(**SHAPE, attention_dropout=0.1))
    assert "dropout (0.1)" in (why_not(dropout) or "")
    assert "'mistral'" in (why_not(MistralForCausalLM(MistralConfig(**SHAPE))) or "")
    prompts = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    assert "tokens of its own" in (why_not(get_peft_model(LlamaForCausalLM(LlamaConfig(**SHAPE)), prompts)) or "")


def test_rows_with_images_and_an_auxiliary_loss_go_trls_way(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path)
    trainer.shares_prompts = True
    calls = []
    monkeypatch.setattr(trainer, "_plainly", lambda *args, **more: calls.append((args, more)))
    ids = mask = torch.ones(2, 4, dtype=torch.long)
    trainer._get_per_token_logps_and_entropies(None, ids, mask, 2, pixel_values=torch.zeros(1), num_images=None)
    trainer._get_per_token_logps_and_entropies(None, ids, mask, 2, compute_aux_loss=True)
    assert len(calls) == 2


def test_processes_take_the_same_way(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path)
    # Another process, whose rows differ.
    monkeypatch.setattr(trainer.accelerator, "gather", lambda error: torch.tensor([error, 5.0]))
    ids = torch.arange(4, 16).view(2, 6)
    assert not trainer._both_ways_agree(trainer.model, ids, torch.ones_like(ids), 3)


def test_the_distance_is_over_the_tokens_that_are_asked_for():
    found, expected = torch.tensor([[1.0, 5.0, 9.0]]), torch.tensor([[1.0, 2.0, 5.0]])
    asked = torch.tensor([[True, False, True]])
    assert distance(found, expected, asked).item() == pytest.approx(math.sqrt(16 / 2))
    assert distance(found, expected, torch.zeros(1, 3, dtype=torch.bool)) == 0
    assert distance(found * math.nan, expected, asked).item() == math.inf


class TestGeneration:
    """A prompt is prefilled once for all its completions."""

    @staticmethod
    def first_rows(trainer):
        """Rows of the first forward of a step, and its completions."""
        rows = []
        trainer.model.register_forward_pre_hook(
            lambda _, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
        )
        trainer.train()
        return rows[0], [completion[0]["content"] for completion in trainer._logs["completion"]]

    def test_the_distinct_prompts_go_first_and_the_completions_are_the_same(self, tmp_path):
        rows, shared = self.first_rows(make_trainer(tmp_path / "shared", temperature=0.8))
        all_rows, plain = self.first_rows(make_trainer(tmp_path / "plain", temperature=0.8, shared_prompts=False))
        assert (rows, all_rows) == (2, 8)
        assert shared == plain
        assert len(set(shared)) > 2

    def test_where_processes_must_take_equally_many_forwards_trl_generates(self, tmp_path, monkeypatch):
        trainer = make_trainer(tmp_path)
        assert trainer._generates_alone()
        monkeypatch.setattr(shared_prompts, "is_deepspeed_zero3_enabled", lambda: True)
        assert trainer._generates_alone()
        trainer.args.ds3_gather_for_generation = False
        assert not trainer._generates_alone()
        monkeypatch.setattr(shared_prompts, "is_deepspeed_zero3_enabled", lambda: False)
        assert trainer._generates_alone()
        trainer.is_fsdp_enabled = True
        assert not trainer._generates_alone()
