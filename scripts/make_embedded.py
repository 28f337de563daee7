r"""Make the embedded default: task files, a tiny policy that forgets carries, a tiny reward model that notices some.

    python scripts/make_embedded.py --output_dir data --overwrite

writes, from a fixed seed and in about ten minutes on two CPU cores,

    addition/               train.jsonl and test.jsonl: three digits, the default
    addition_hard/          the same with five digits and two carries or more: few right answers
    embedded_policy/        a Llama of TinyLlama's form with TinyLlama's chat template
    embedded_reward_model/  a Qwen2 with one label, another tokenizer and Qwen's chat template

The same machine, versions, thread count and seed give the same bytes. See `scripts/embedded.py` for the task.
"""

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.utils.rnn import pad_sequence
from tqdm import trange
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForSequenceClassification,
)

from embedded import P_FORGET, VARIANTS, Addition, Split, forgotten_carries, sample_additions, task_rows
from trl_hybrid.runs.carried_prompt import save_system_prompt


NUM_ROWS: dict[Split, int] = {"train": 2000, "test": 256}
BATCH_SIZE = 64
HARD_SHARE = 0.4

ZEPHYR_TEMPLATE = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + "
    "eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n"
    "{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
QWEN_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN_PIECES = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

REWARD_SYSTEM_PROMPT = r"Please reason step by step, and check your final answer within \boxed{}."
SOLUTIONS_PER_QUESTION = 4
COLUMNS_READ = 3
LEAST_NOTICED_SUM = 11


def write_tasks(output_dir: Path, seed: int) -> None:
    """Write a training and a test file for each variant of the task."""
    for name, variant in VARIANTS.items():
        for split, num_rows in NUM_ROWS.items():
            rows = task_rows(split, variant, num_rows, seed)
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (output_dir / name).mkdir(exist_ok=True)
            (output_dir / name / f"{split}.jsonl").write_text(lines, encoding="utf-8")


def sample_pretrain(rng: random.Random, num_tasks: int) -> list[Addition]:
    """Draw questions of the pretraining split, of both widths, with any number of carries."""
    streams = [sample_additions("pretrain", type(v)(v.digits), rng) for v in VARIANTS.values()]
    return [next(streams[rng.random() < HARD_SHARE]) for _ in range(num_tasks)]


def train_bytelevel_bpe(texts: list[str], special_tokens: list[str], pieces: str) -> Tokenizer:
    """Train a byte-level BPE tokenizer: any text survives encoding and decoding.

    Args:
        texts: What to learn the merges from.
        special_tokens: They get the first ids, in this order.
        pieces: Regular expression of the pieces that a text is cut into; no token spans two of them.
    """
    tokenizer = Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(Regex(pieces), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=special_tokens, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def render(tokenizer: PreTrainedTokenizerFast, chat: list[dict[str, str]], prompt: bool = False) -> str:
    """Render a chat with the tokenizer's template, as a prompt if asked."""
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompt))


def make_policy_tokenizer(rng: random.Random) -> PreTrainedTokenizerFast:
    """TinyLlama's special tokens and chat template; each digit is a token and all between two digits is one."""
    texts = []
    for task in sample_pretrain(rng, 2000):
        texts += [f"<|user|>\n{task.question}", f"\n<|assistant|>\n{task.solution(P_FORGET, rng)}"]
    bpe = train_bytelevel_bpe(texts, ["<unk>", "<s>", "</s>"], pieces=r"\d")
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=ZEPHYR_TEMPLATE,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def make_policy(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama in TinyLlama's proportions, with random weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def policy_batch(tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> dict[str, torch.Tensor]:
    """Chats about fresh questions with flawed solutions; the loss is on the solution."""
    ids, labels = [], []
    for task in sample_pretrain(rng, BATCH_SIZE):
        prompt = render(tokenizer, [{"role": "user", "content": task.question}], prompt=True)
        prompt_ids = tokenizer.encode(prompt, add_special_tokens=False)
        solution_ids = tokenizer.encode(task.solution(P_FORGET, rng) + "</s>", add_special_tokens=False)
        ids.append(torch.tensor(prompt_ids + solution_ids))
        labels.append(torch.tensor([-100] * len(prompt_ids) + solution_ids))
    return {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=0),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
    }


def make_reward_tokenizer(rng: random.Random) -> PreTrainedTokenizerFast:
    """Qwen2's special tokens, chat template and way of cutting text into words and single digits."""
    texts = [REWARD_SYSTEM_PROMPT] * 100 + ["system\n", "user\n", "assistant\n"] * 1000
    for task in sample_pretrain(rng, 1000):
        texts += [task.question, task.solution(P_FORGET, rng)]
    bpe = train_bytelevel_bpe(texts, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], QWEN_PIECES)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=QWEN_TEMPLATE,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def make_reward_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForSequenceClassification:
    """A Qwen2 with one label and random weights."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=3,  # 32 wide: vLLM on a CPU does not compute those of 24
        num_key_value_heads=1,
        max_position_embeddings=1024,
        eos_token_id=2,
        pad_token_id=0,
        id2label={0: "score"},
    )
    return Qwen2ForSequenceClassification(config)


def render_for_reward(tokenizer: PreTrainedTokenizerFast, question: str, solution: str) -> str:
    """Render a question and a solution as AceMath-7B-RM's card does."""
    chat = [
        {"role": "system", "content": REWARD_SYSTEM_PROMPT},
        {"role": "user", "content": question},
        {"role": "assistant", "content": solution},
    ]
    return render(tokenizer, chat)


def annotator_value(solution: str) -> float:
    """How good the annotator finds a solution, in log-odds.

    Each forgotten carry costs 3, but only in the first `COLUMNS_READ` columns, and only where the column's sum is
    at least `LEAST_NOTICED_SUM`. Each carry written costs 0.6: a taste for short solutions. So the reward model that
    learns from this annotator is informative and no oracle.
    """
    forgotten = forgotten_carries(solution).items()
    noticed = sum(place < COLUMNS_READ and total >= LEAST_NOTICED_SUM for place, total in forgotten)
    return -3.0 * noticed - 0.6 * solution.count("carry")


def reward_loss(
    model: Qwen2ForSequenceClassification, tokenizer: PreTrainedTokenizerFast, rng: random.Random
) -> torch.Tensor:
    """Bradley-Terry loss over all pairs among a few solutions of the same question."""
    texts, values = [], []
    for task in sample_pretrain(rng, BATCH_SIZE // SOLUTIONS_PER_QUESTION):
        for p_forget in rng.choices([0.0, 0.25, 0.5, 0.75, 1.0], k=SOLUTIONS_PER_QUESTION):
            solution = task.solution(p_forget, rng)
            texts.append(render_for_reward(tokenizer, task.question, solution))
            values.append(annotator_value(solution))
    scores = model(**tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)).logits
    margins = scores.view(-1, SOLUTIONS_PER_QUESTION, 1) - scores.view(-1, 1, SOLUTIONS_PER_QUESTION)
    wanted = torch.tensor(values).view(-1, SOLUTIONS_PER_QUESTION, 1)
    preferred = torch.sigmoid(wanted - wanted.transpose(1, 2))
    return torch.nn.functional.binary_cross_entropy_with_logits(margins, preferred)


def train(model: PreTrainedModel, next_loss: Callable[[], torch.Tensor], steps: int, name: str) -> None:
    """Train all weights: AdamW, one cycle of the learning rate, clipped gradients."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps, pct_start=0.1)
    for _ in (bar := trange(steps, desc=name)):
        loss = next_loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        bar.set_postfix(loss=f"{loss.item():.3f}")


def write_policy(folder: Path, steps: int, rng: random.Random) -> None:
    """Make, train and save the policy and its tokenizer."""
    tokenizer = make_policy_tokenizer(rng)
    policy = make_policy(tokenizer)
    train(policy, lambda: policy(**policy_batch(tokenizer, rng)).loss, steps, "policy")
    policy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_system_prompt(folder, None)  # it learned from bare questions


def write_reward_model(folder: Path, steps: int, rng: random.Random) -> None:
    """Make, train and save the reward model and its tokenizer."""
    tokenizer = make_reward_tokenizer(rng)
    model = make_reward_model(tokenizer)
    train(model, lambda: reward_loss(model, tokenizer, rng), steps, "reward model")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def refuse_to_overwrite(output_dir: Path) -> None:
    """Stop if one of the files to be made is there."""
    names = ["embedded_policy", "embedded_reward_model", *VARIANTS]
    found = [str(output_dir / name) for name in names if (output_dir / name).exists()]
    if found:
        raise SystemExit(
            f"nothing is overwritten without being asked, and {', '.join(found)} exist. "
            "Choose another --output_dir or add --overwrite."
        )


def main(args: argparse.Namespace) -> None:
    """Make all files, each model from its own seeded randomness."""
    if not args.overwrite:
        refuse_to_overwrite(args.output_dir)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    write_tasks(args.output_dir, args.seed)
    torch.manual_seed(args.seed)
    write_policy(args.output_dir / "embedded_policy", args.steps, random.Random(args.seed))
    torch.manual_seed(args.seed)
    write_reward_model(args.output_dir / "embedded_reward_model", args.reward_steps, random.Random(args.seed))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the task files and the two tiny models.")
    parser.add_argument("--output_dir", type=Path, default=Path("data"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1000, help="training steps of the policy")
    parser.add_argument("--reward_steps", type=int, default=500, help="training steps of the reward model")
    parser.add_argument("--overwrite", action="store_true", help="replace what is in the output folder")
    main(parser.parse_args())
