"""What only a GPU can show about scoring: its kernels, its copies and its memory.

With TRL_HYBRID_GPU_TESTS_ON=cpu those that make sense there run on a CPU at small size, to show that they work.
"""

import gc
import os

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    Qwen3Config,
    Qwen3ForSequenceClassification,
)

from trl_hybrid.reward_model import RewardModel


pytestmark = pytest.mark.gpu

DEVICE = torch.device(os.environ.get("TRL_HYBRID_GPU_TESTS_ON", "cuda"))
ON_GPU = DEVICE.type == "cuda"
DTYPE = torch.bfloat16
VOCAB = 1024

# The heads and widths of real models, two layers of them.
SHAPES = {
    "acemath-7b": (
        Qwen2Config,
        Qwen2ForSequenceClassification,
        {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4},
    ),
    "skywork-qwen3-8b": (
        Qwen3Config,
        Qwen3ForSequenceClassification,
        {
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
    ),
    "tinyllama": (
        LlamaConfig,
        LlamaForSequenceClassification,
        {"hidden_size": 2048, "intermediate_size": 5632, "num_attention_heads": 32, "num_key_value_heads": 4},
    ),
}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory, tokenizer_of):
    """Return a function that saves a random model of a shape, once."""
    made = {}

    def save(shape, layers=2):
        if (shape, layers) not in made:
            path = tmp_path_factory.mktemp(shape)
            config_class, model_class, sizes = SHAPES[shape]
            if not ON_GPU:
                sizes = {name: max(1, size // 32) if "head" not in name else size for name, size in sizes.items()}
                sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
            torch.manual_seed(0)
            config = config_class(
                vocab_size=VOCAB,
                num_labels=1,
                num_hidden_layers=layers,
                pad_token_id=0,
                initializer_range=0.05,
                **sizes,
            )
            with DEVICE:
                model = model_class._from_config(config, dtype=DTYPE)
                torch.nn.init.normal_(model.score.weight, std=3 * config.hidden_size**-0.5)
            model.save_pretrained(path)
            tokenizer_of().save_pretrained(path)
            made[shape, layers] = str(path)
        return made[shape, layers]

    yield save
    gc.collect()
    torch.cuda.empty_cache()


def rows_of(groups, prompt, lengths, seed=0):
    """Rows of random ids: `groups` prompts of `prompt` tokens, each with completions of these lengths."""
    generator = torch.Generator().manual_seed(seed)

    def draw(length):
        return tuple(torch.randint(300, VOCAB, (length,), generator=generator).tolist())

    prompts = [draw(prompt) for _ in range(groups)]
    return [(*start, *draw(length)) for start in prompts for length in lengths]


def plain_scores(folder, rows, dtype):
    """Score rows one by one with transformers alone."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype).to(DEVICE).eval()
    model.config.pad_token_id = None  # the row's last token is the one that counts
    model.score.float()
    with torch.inference_mode():
        hidden = [model.base_model(torch.tensor([row], device=DEVICE)).last_hidden_state[0, -1] for row in rows]
        return torch.stack([model.score(state.float())[0] for state in hidden]).cpu()


def scorer(folder, placement, **options):
    return RewardModel(folder, placement=placement, device=DEVICE, dtype=DTYPE, cache_size=0, **options).backend


def scores_of(backend, rows):
    return torch.tensor(backend.score(rows))


# Lengths around the multiples at which kernels change their tiling, and prompts that a group shares.
ROWS = rows_of(groups=4, prompt=90, lengths=(1, 38, 63, 64, 65, 166, 230, 700))


@pytest.mark.parametrize("shape", SHAPES)
def test_packed_rows_score_as_close_to_fp32_as_plain_rows_do(folder_of, shape):
    folder = folder_of(shape)
    exact = plain_scores(folder, ROWS, torch.float32)
    rounding = (plain_scores(folder, ROWS, DTYPE) - exact).abs().max()
    backend = scorer(folder, "resident")
    assert type(backend.forward).__name__ == "PackedForward"  # the first-use check did not send it to padding
    assert exact.std() > 0.5
    difference = (scores_of(backend, ROWS) - exact).abs().max()
    assert difference <= 2 * rounding + 0.01, f"{difference:.4f}, where bf16 itself rounds by {rounding:.4f}"


@pytest.mark.skipif(not ON_GPU, reason="kernels are a GPU's")
@pytest.mark.parametrize("shape", SHAPES)
def test_packed_rows_take_the_varlen_kernel_where_torch_has_one(folder_of, shape):
    from torch.profiler import ProfilerActivity, profile

    pytest.importorskip("torch.nn.attention.varlen")
    backend = scorer(folder_of(shape), "resident")
    backend.score(ROWS)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        backend.score(ROWS)
    attention = {event.key: event.count for event in profiler.key_averages() if "flash" in event.key.lower()}
    forwards = len(backend.forward.plan(ROWS, backend.token_budget))
    assert sum(attention.values()) <= 2 * 2 * forwards, attention  # by layer and forward, not by row
    assert attention
    assert not [event.key for event in profiler.key_averages() if "cudnn" in event.key.lower()]


def test_streamed_scores_are_the_resident_ones_twice_and_after_an_interrupted_pass(folder_of, monkeypatch):
    folder = folder_of("tinyllama", layers=6)
    resident = scores_of(scorer(folder, "resident"), ROWS)
    backend = scorer(folder, "streamed")
    first, second = (scores_of(backend, ROWS) for _ in range(2))
    assert (first - resident).abs().max() < 0.05 * resident.abs().max()
    assert torch.equal(first, second)

    with monkeypatch.context() as patch:
        patch.setattr(backend.layers[3].mlp, "forward", interrupt)
        with pytest.raises(KeyboardInterrupt):
            backend.score(ROWS)
    assert torch.equal(scores_of(backend, ROWS), first)


def test_streamed_scores_do_not_depend_on_what_was_scored_before(folder_of):
    backend = scorer(folder_of("tinyllama", layers=6), "streamed", token_budget=1024)
    expected = scores_of(backend, ROWS)
    for seed in range(3):  # other rows, of other lengths, between
        other = rows_of(groups=seed + 1, prompt=40, lengths=(5, 300, 77 * (seed + 1)), seed=seed)
        backend.score(other)
        assert torch.equal(scores_of(backend, ROWS), expected)


@pytest.mark.skipif(not ON_GPU, reason="a CPU's memory does not run out in time")
@pytest.mark.parametrize("placement", ["resident", "streamed"])
def test_out_of_memory_makes_forwards_smaller_and_scores_stay(folder_of, placement, caplog):
    folder = folder_of("acemath-7b")
    rows = rows_of(groups=8, prompt=100, lengths=(300, 500, 700, 900), seed=1)
    backend = scorer(folder, placement, token_budget=1 << 14)
    expected = scores_of(backend, rows)
    gc.collect()
    torch.cuda.empty_cache()
    # Room for the rows of a small forward beside the weights: 16384 tokens take 2.2 GB and more.
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 8e8) / total)
        tight = scores_of(backend, rows)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "ran out of memory" in caplog.text
    assert (tight - expected).abs().max() < 0.05 * expected.abs().max()


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt
