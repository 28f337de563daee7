"""Run folders as the recipe leaves them, with figures that tests know."""

import json

import pandas as pd


HOSTILE = (
    "</script><script>window.attacked = 1</script>"
    '<img src="https://attacker.example/x.png" onerror="window.attacked = 2"> <b>bold</b> \u2028 end'
)


def messages(role, text):
    return [{"role": "system", "content": "Be brief."}, {"role": role, "content": text}]


def row(step, question, completion, verdict, score, reward, **more):
    return {
        "step": step,
        "prompt": messages("user", question),
        "completion": messages("assistant", completion),
        "math_verifier": verdict,
        "verdict": verdict,
        "score": score,
        "hybrid_reward": reward,
        "advantage": reward - 0.5,
        "gold": "12",
        "extracted_answer": "12" if verdict == 1.0 else "7",
        "reason": {1.0: "numeric", 0.0: "mismatch"}.get(verdict, "unjudgeable"),
        "disagreement": False,
        **more,
    }


def write_table(folder, step, rows):
    (folder / "completions").mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(folder / "completions" / f"completions_{step:05d}.parquet")


def write_history(folder, steps):
    rows = [
        {
            "step": step,
            "hybrid/pass_rate": step / 10,
            "hybrid/alarm": 0.0,
            "entropy": None,
            "kl": 0.01 * step,
            "time/generation": 2.0,
            "time/judging": 1.0,
            "time/update": 3.0,
        }
        for step in range(1, steps + 1)
    ]
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_settings(folder, max_steps=40):
    settings = {
        "tasks": {"dataset_name": "data/addition"},
        "judges": {"reward_model_name_or_path": "data/embedded_reward_model"},
        "model": {"model_name_or_path": "data/embedded_policy"},
        "training": {"max_steps": max_steps, "hybrid_alpha": 0.1},
    }
    (folder / "settings.json").write_text(json.dumps({"settings": settings, "versions": {"trl": "1.16.0"}}))
