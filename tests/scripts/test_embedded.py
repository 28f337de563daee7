import json
import random
import re
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaForCausalLM,
    Qwen2ForSequenceClassification,
)

from embedded import (
    MAX_COMPLETION_TOKENS,
    MAX_PROMPT_TOKENS,
    VARIANTS,
    Addition,
    Variant,
    forgotten_carries,
    sample_additions,
    split_of,
    task_rows,
)


DATA = Path(__file__).parents[2] / "data"
REWARD_SYSTEM_PROMPT = r"Please reason step by step, and check your final answer within \boxed{}."
FILES = [(variant, split) for variant in VARIANTS for split in ("train", "test")]


def boxed(text):
    return re.findall(r"\\boxed\{(\d+)\}", text)[-1:]


def read_rows(variant, split):
    return [json.loads(line) for line in (DATA / variant / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def random_additions(num_tasks, digits):
    rng = random.Random(1)
    return [Addition(rng.randrange(10**digits), rng.randrange(10**digits)) for _ in range(num_tasks)]


@pytest.fixture(scope="module")
def policy():
    folder = DATA / "embedded_policy"
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def reward_model():
    folder = DATA / "embedded_reward_model"
    return AutoModelForSequenceClassification.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def answer(policy, rows, **generation):
    model, tokenizer = policy
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": row["question"]}], add_generation_prompt=True, tokenize=False
        )
        for row in rows
    ]
    batch = tokenizer(prompts, add_special_tokens=False, return_tensors="pt")  # equal lengths: nothing is padded
    output = model.generate(**batch, max_new_tokens=64, pad_token_id=tokenizer.eos_token_id, **generation)
    return tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


@pytest.fixture(scope="module")
def sampled_groups(policy):
    """Sixty-four test questions, eight sampled solutions each: (row, solutions, verdicts)."""
    torch.manual_seed(0)
    rows = read_rows("addition", "test")[:64]
    texts = answer(policy, rows, do_sample=True, temperature=1.0, top_k=0, num_return_sequences=8)
    groups = [texts[i : i + 8] for i in range(0, len(texts), 8)]
    return [(row, g, [boxed(t) == [row["answer"]] for t in g]) for row, g in zip(rows, groups, strict=True)]


def score(reward_model, question, solutions):
    model, tokenizer = reward_model
    head = [{"role": "system", "content": REWARD_SYSTEM_PROMPT}, {"role": "user", "content": question}]
    texts = [
        tokenizer.apply_chat_template([*head, {"role": "assistant", "content": s}], tokenize=False) for s in solutions
    ]
    with torch.no_grad():
        return model(**tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)).logits[:, 0]


def test_split_of_a_question_never_changes():
    splits = [split_of(f"What is {a} + 178?") for a in (455, 456, 457, 458, 459, 460)]
    assert splits == ["pretrain", "test", "pretrain", "train", "pretrain", "train"]


def test_splits_have_the_stated_shares():
    splits = [split_of(task.question) for task in random_additions(5000, digits=3)]
    shares = [splits.count(split) / len(splits) for split in ("pretrain", "train", "test")]
    assert shares == pytest.approx([0.5, 0.4, 0.1], abs=0.03)


@pytest.mark.parametrize("digits", [1, 2, 3, 5, 8])
def test_solution_without_forgetting_is_right(digits):
    for task in random_additions(200, digits):
        assert boxed(task.solution()) == [task.answer]
        assert task.solution().count(", carry 1.") == task.carries
        assert not forgotten_carries(task.solution())


def test_forgetting_every_carry_is_wrong_exactly_where_one_is_due():
    for task in random_additions(500, digits=3):
        flawed = task.solution(p_forget=1.0)
        assert "carry" not in flawed
        assert (boxed(flawed) == [task.answer]) == (task.carries == 0)


def test_forgetting_is_as_frequent_as_asked():
    rng = random.Random(0)
    right = sum(boxed(Addition(15, 16).solution(0.75, rng)) == ["31"] for _ in range(2000))
    assert right / 2000 == pytest.approx(0.25, abs=0.04)


def test_forgotten_carry_is_neither_written_nor_added():
    assert Addition(458, 178).solution(1.0) == r"8 + 8 = 16. 5 + 7 = 12. 4 + 1 = 5. The answer is \boxed{526}."


def test_numbers_of_unequal_width_are_aligned():
    assert Addition(95, 7).solution() == r"5 + 7 = 12, carry 1. 9 + 0 + 1 = 10. The answer is \boxed{102}."


def test_variant_rules_hold_for_drawn_questions():
    tasks = sample_additions("train", Variant(digits=4, min_carries=3), random.Random(0))
    for task in (next(tasks) for _ in range(20)):
        assert task.carries == 3
        assert len(str(task.a)) == len(str(task.b)) == 4


def test_same_seed_gives_the_same_rows():
    variant = VARIANTS["addition"]
    assert task_rows("test", variant, 5, seed=3) == task_rows("test", variant, 5, seed=3)
    assert task_rows("test", variant, 5, seed=3) != task_rows("test", variant, 5, seed=4)


@pytest.mark.parametrize(("variant", "split"), FILES)
def test_task_file_holds_its_own_split_and_right_answers(variant, split):
    rows = read_rows(variant, split)
    assert len(rows) == {"train": 2000, "test": 256}[split]
    assert len({row["question"] for row in rows}) == len(rows)
    for row in rows:
        a, b = map(int, re.findall(r"\d+", row["question"]))
        assert row == {"question": f"What is {a} + {b}?", "answer": str(a + b)}
        assert split_of(row["question"]) == split
        assert Addition(a, b).carries >= VARIANTS[variant].min_carries


@pytest.mark.parametrize("name", ["embedded_policy", "embedded_reward_model"])
def test_model_folder_is_small_and_safe(name):
    files = list((DATA / name).iterdir())
    assert sum(file.stat().st_size for file in files) <= 4_000_000
    assert [file.name for file in files if file.suffix == ".safetensors"] == ["model.safetensors"]
    assert not [file for file in files if file.suffix in {".bin", ".pt", ".pth"}]


def test_models_have_the_shapes_they_stand_for(policy, reward_model):
    assert isinstance(policy[0], LlamaForCausalLM)
    assert isinstance(reward_model[0], Qwen2ForSequenceClassification)
    assert reward_model[0].config.num_labels == 1
    assert {model.dtype for model in (policy[0], reward_model[0])} == {torch.float32}
    assert policy[1].get_vocab() != reward_model[1].get_vocab()


def test_policy_template_is_tinyllamas(policy):
    chat = [
        {"role": "system", "content": "Add."},
        {"role": "user", "content": "What is 1 + 2?"},
        {"role": "assistant", "content": "3"},
    ]
    render = policy[1].apply_chat_template
    head = "<|system|>\nAdd.</s>\n<|user|>\nWhat is 1 + 2?</s>\n"
    assert render(chat[:2], tokenize=False, add_generation_prompt=True) == head + "<|assistant|>\n"
    assert render(chat, tokenize=False) == head + "<|assistant|>\n3</s>\n"
    assert (policy[1].eos_token, policy[1].eos_token_id) == ("</s>", 2)


def test_reward_template_is_qwens(reward_model):
    chat = [{"role": "system", "content": "Check."}, {"role": "user", "content": "1 + 2?"}]
    render = reward_model[1].apply_chat_template
    expected = "<|im_start|>system\nCheck.<|im_end|>\n<|im_start|>user\n1 + 2?<|im_end|>\n"
    assert render(chat, tokenize=False) == expected
    assert render(chat, tokenize=False, add_generation_prompt=True) == expected + "<|im_start|>assistant\n"
    assert "You are a helpful assistant." in render(chat[1:], tokenize=False)


@pytest.mark.parametrize(
    "text", ["", Addition(458, 178).solution(), " a  b , c .", "Héllo, $x^2$ — 你好\n\t🙂 1,000.5"]
)
def test_tokenizers_lose_nothing(policy, reward_model, text):
    for _, tokenizer in (policy, reward_model):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_policy_reads_digit_by_digit_and_prompts_are_short(policy):
    tokenizer = policy[1]
    assert tokenizer.tokenize("458 + 178") == ["4", "5", "8", "Ġ+Ġ", "1", "7", "8"]
    for name, variant in VARIANTS.items():
        tasks = sample_additions("train", variant, random.Random(0))
        for task in (next(tasks) for _ in range(50)):
            chat = [{"role": "user", "content": task.question}]
            prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
            assert len(tokenizer.encode(prompt, add_special_tokens=False)) <= MAX_PROMPT_TOKENS
            solution = tokenizer.encode(task.solution() + tokenizer.eos_token, add_special_tokens=False)
            assert len(solution) <= MAX_COMPLETION_TOKENS[name]


def test_policy_answers_three_test_questions_of_ten(policy):
    rows = read_rows("addition", "test")
    texts = answer(policy, rows, do_sample=False)
    accuracy = sum(boxed(t) == [row["answer"]] for t, row in zip(texts, rows, strict=True)) / len(rows)
    assert 0.2 <= accuracy <= 0.4


def test_policy_samples_more_right_answers_than_it_answers_greedily(sampled_groups):
    verdicts = [verdict for _, _, group in sampled_groups for verdict in group]
    assert 0.3 <= sum(verdicts) / len(verdicts) <= 0.5


def test_hard_variant_has_few_right_answers(policy):
    torch.manual_seed(0)
    rows = read_rows("addition_hard", "test")[:128]
    texts = answer(policy, rows, do_sample=True, temperature=1.0, top_k=0, num_return_sequences=2)
    rate = sum(boxed(t) == [rows[i // 2]["answer"]] for i, t in enumerate(texts)) / len(texts)
    assert 0.01 <= rate <= 0.06


def test_reward_model_is_informative_and_no_oracle(reward_model, sampled_groups):
    aucs = []
    for row, solutions, verdicts in sampled_groups:
        scores, right = score(reward_model, row["question"], solutions), torch.tensor(verdicts)
        if right.any() and not right.all():
            margins = scores[right][:, None] - scores[~right][None, :]
            aucs.append(((margins > 0) + 0.5 * (margins == 0)).float().mean().item())
    assert len(aucs) >= 20
    assert 0.7 <= sum(aucs) / len(aucs) <= 0.9


def test_reward_model_prefers_fewer_forgotten_carries_among_wrong_solutions(reward_model):
    tasks = sample_additions("test", VARIANTS["addition_hard"], random.Random(0))
    agree = []
    for task in (next(tasks) for _ in range(20)):
        solutions = [task.solution(0.75, random.Random(i)) for i in range(8)]
        scores = score(reward_model, task.question, solutions).tolist()
        wrong = [
            (len(forgotten_carries(t)), s) for t, s in zip(solutions, scores, strict=True) if forgotten_carries(t)
        ]
        agree += [s < t for m, s in wrong for n, t in wrong if m > n]
    assert 0.55 <= sum(agree) / len(agree) <= 0.85
