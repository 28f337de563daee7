"""Each data set that the documentation names: rows with its columns, written by hand, give prompt and gold."""

import pandas as pd
import pytest

from trl_hybrid.data import load_tasks


QUESTION = "A box holds 4 rows of 9 pears. How many pears are in 3 boxes?"
WORK = "A box holds $4 \\cdot 9 = 36$ pears, three boxes hold $\\boxed{108}$."
TALK = [{"role": "user", "content": "Not this text."}, {"role": "assistant", "content": "Not \\boxed{1}."}]

ROWS = {
    "openai/gsm8k": {
        "question": QUESTION,
        "answer": "One box holds 4*9 = <<4*9=36>>36 pears.\nThree hold 36*3 = <<36*3=108>>108.\n#### 108",
    },
    "DigitalLearningGmbH/MATH-lighteval": {
        "problem": QUESTION,
        "level": "Level 1",
        "solution": WORK,
        "type": "Prealgebra",
    },
    "HuggingFaceH4/MATH-500": {
        "problem": QUESTION,
        "solution": "Some text with \\boxed{107}, which is not the gold.",
        "answer": "108",
        "subject": "Prealgebra",
        "level": 1,
        "unique_id": "test/prealgebra/1.json",
    },
    "AI-MO/NuminaMath-CoT": {"source": "orca_math", "problem": QUESTION, "solution": WORK, "messages": TALK},
    "AI-MO/NuminaMath-1.5": {
        "problem": QUESTION,
        "solution": "Some text with \\boxed{107}, which is not the gold.",
        "answer": "108",
        "problem_type": "Algebra",
        "question_type": "math-word-problem",
        "problem_is_valid": "Yes",
        "solution_is_valid": "Yes",
        "source": "cn_k12",
        "synthetic": False,
    },
    "AI-MO/NuminaMath-TIR": {
        "problem": QUESTION,
        "solution": "```python\nprint(4 * 9 * 3)\n```\n```output\n108\n```\nThe boxes hold \\(\\boxed{108}\\) pears.",
        "messages": TALK,
    },
    "trl-lib/DeepMath-103K": {"prompt": [{"role": "user", "content": QUESTION}], "solution": "$108$"},
    "zwhe99/DeepMath-103K": {
        "question": QUESTION,
        "final_answer": "108",
        "difficulty": 1.0,
        "topic": "Mathematics -> Prealgebra",
        "r1_solution_1": "Not \\boxed{1}.",
        "r1_solution_2": "Not \\boxed{2}.",
        "r1_solution_3": "Not \\boxed{3}.",
    },
    "nvidia/OpenMathReasoning": {
        "expected_answer": "108",
        "problem_type": "has_answer_extracted",
        "problem_source": "aops_c4_high_school_math",
        "generation_model": "DeepSeek-R1",
        "pass_rate_72b_tir": "0.9",
        "problem": QUESTION,
        "generated_solution": "<think>Is it \\boxed{107}?</think> It is \\boxed{107}.",
        "inference_mode": "cot",
        "used_in_kaggle": True,
    },
    "verl": {
        "data_source": "openai/gsm8k",
        "prompt": [{"role": "user", "content": QUESTION}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "108"},
        "extra_info": {"split": "train", "index": 0, "question": "Not this text.", "answer": "#### 107"},
    },
}
TASK = {"prompt": [{"role": "user", "content": QUESTION}], "solution": "108"}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("streaming", [False, True])
def test_rows_of_a_named_data_set(tmp_path, name, streaming):
    pd.DataFrame([ROWS[name]] * 2).to_parquet(tmp_path / "rows.parquet")
    assert list(load_tasks(str(tmp_path / "rows.parquet"), streaming=streaming)) == [TASK, TASK]


@pytest.mark.parametrize("name", ROWS)
def test_the_same_rows_as_jsonl(jsonl, name):
    assert list(load_tasks(jsonl([ROWS[name]]))) == [TASK]


def test_splits_that_are_not_called_train(tmp_path):
    """nvidia/OpenMathReasoning has the splits cot, tir and genselect."""
    (tmp_path / "data").mkdir()
    row = ROWS["nvidia/OpenMathReasoning"]
    for split, gold in [("cot", "108"), ("tir", "109")]:
        pd.DataFrame([{**row, "expected_answer": gold}]).to_parquet(
            tmp_path / "data" / f"{split}-00000-of-00001.parquet"
        )
    assert list(load_tasks(str(tmp_path), split="cot")["solution"]) == ["108"]
    assert list(load_tasks(str(tmp_path), split="tir")["solution"]) == ["109"]
