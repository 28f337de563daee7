"""What a run shows in the terminal can be read, and shows what happened."""

import pandas as pd

from trl_hybrid.report import sample_completions


def messages(text):
    return [{"role": "assistant", "content": text}]


def test_samples_go_from_best_paid_to_worst_paid_with_verdict_score_and_reward():
    table = pd.DataFrame(
        {
            "prompt": [messages("What is 1 + 1?")] * 5,
            "completion": [messages(text) for text in ("best", "middle", "worst", "second", "fourth")],
            "verdict": [1.0, 0.0, 0.0, 1.0, 0.0],
            "score": [3.25, 1.0, -2.0, 0.5, -1.0],
            "hybrid_reward": [1.1, 0.1, -0.1, 0.9, 0.0],
        }
    )
    text = sample_completions(table, count=3)
    assert text.index("best") < text.index("middle") < text.index("worst")
    assert "second" not in text
    assert "-> right, RM score 3.25, hybrid reward 1.100" in text
    assert "-> wrong, RM score -2.00, hybrid reward -0.100" in text


def test_completions_that_repeat_are_shown_once():
    table = pd.DataFrame(
        {"prompt": ["q"] * 3, "completion": ["same"] * 3, "verdict": [0.0, 0.0, float("nan")]}
    ).assign(score=1.0, hybrid_reward=[0.0, 0.0, float("nan")])
    assert sample_completions(table).count("same") == 1
