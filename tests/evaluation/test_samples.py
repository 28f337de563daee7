"""Sampled rows are judged, saved batch by batch, and the same whether made at once or in parts."""

import json
import re
from types import SimpleNamespace

import pytest

from trl_hybrid.data import load_tasks
from trl_hybrid.errors import InputError
from trl_hybrid.evaluation.samples import Judges, sample_rows, samples_file
from trl_hybrid.policy.generation import Completion, Decoding
from trl_hybrid.policy.source import find_policy
from trl_hybrid.policy.transformers_sampler import TransformersSampler
from trl_hybrid.verifier import MathVerifier


DECODING = Decoding(num_samples=2, temperature=1.0, max_completion_length=40)


@pytest.fixture(scope="module")
def judges():
    with MathVerifier(num_workers=1) as verifier:
        yield Judges(verifier)


@pytest.fixture(scope="module")
def sampler():
    return TransformersSampler(find_policy("data/embedded_policy"))


@pytest.fixture(scope="module")
def tasks():
    return list(load_tasks("data/addition", split="test", max_rows=10))


class Stopped:
    """Answers so many batches and is then interrupted."""

    def __init__(self, sampler, batches):
        self.sampler, self.left = sampler, batches

    def answer(self, *args):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return self.sampler.answer(*args)


def make(path, tasks, sampler, judges, batch_size=4, made_by=None, **options):
    file = samples_file(path, tasks, made_by or {"temperature": 1.0}, "Take another.")
    return sample_rows(file, lambda: (sampler, judges), DECODING, batch_size, **options)


def test_rows_hold_the_answers_and_both_verdicts(judges):
    texts = ["\\boxed{0.5}", "The answer is 1/2.", "\\boxed{1/2}", "I do not know", "\\boxed{2}"]
    rows = judges.judge(
        [{"prompt": "Half of one?", "solution": "1/2"}],
        [[Completion(text, text == "I do not know") for text in texts]],
    )[0]
    assert [(row["correct"], row["strict"], row["boxed"]) for row in rows] == [
        (True, False, True), (True, False, False), (True, True, True), (False, False, False), (False, False, True),
    ]  # fmt: skip
    assert [row["answer"] for row in rows] == ["0.5", "1/2", "1/2", None, "2"]
    assert [row["truncated"] for row in rows] == [False, False, False, True, False]
    assert [row["completion"] for row in rows] == texts


class Verifier:
    """Finds every answer right for a reason of its own, and remembers what it was asked."""

    def __init__(self, reason):
        self.reason, self.asked = reason, []

    def verify_batch(self, completions, solutions, prompts=None, truncated=None):
        self.asked.append((completions, solutions, prompts, truncated))
        return [SimpleNamespace(parsed_answer=text, correct=True, reason=self.reason) for text in completions]


def test_both_verifiers_see_answer_gold_and_prompt_and_the_lenient_one_gives_the_reason():
    judges = Judges(Verifier("number"))
    assert judges.strict.method == "boxed"
    judges.strict = Verifier("string")
    tasks = [{"prompt": "P", "solution": "1"}, {"prompt": "Q", "solution": "2"}]
    rows = judges.judge(tasks, [[Completion("1", False), Completion("one", True)], [Completion("2", False)] * 2])
    expected = (["1", "one", "2", "2"], ["1", "1", "2", "2"], ["P", "P", "Q", "Q"], [False, True, False, False])
    assert judges.lenient.asked[0] == judges.strict.asked[0] == expected
    assert rows[0][1] == {
        "completion": "one", "truncated": True, "answer": "one", "correct": True, "reason": "number", "boxed": True,
        "strict": True,
    }  # fmt: skip


class Numbered:
    """Answers each problem with its number, and remembers how many it was asked at once."""

    def __init__(self):
        self.asked = []

    def answer(self, prompts, numbers, decoding):
        assert len(prompts) == len(numbers)
        self.asked.append(list(numbers))
        places = range(decoding.answers)
        return [[Completion(f"\\boxed{{{number}}}" + "!" * place, False) for place in places] for number in numbers]


def numbered(path, rows, decoding=DECODING, **options):
    judges, sampler = Judges(Verifier("number")), Numbered()
    judges.strict = judges.lenient
    tasks = [{"prompt": f"P{number}", "solution": str(number)} for number in range(rows)]
    done = sample_rows(samples_file(path, tasks, {}, ""), lambda: (sampler, judges), decoding, **options)
    return done, sampler.asked


def test_sixteen_problems_are_answered_at_once_unless_said(tmp_path):
    assert numbered(tmp_path / "a.jsonl", 18)[1] == [list(range(16)), [16, 17]]
    assert numbered(tmp_path / "b.jsonl", 5, batch_size=2)[1] == [[0, 1], [2, 3], [4]]


def test_each_batch_is_in_the_file_before_the_next_is_answered(tmp_path):
    path, found = tmp_path / "new" / "folder" / "rows.jsonl", []

    class Looking(Numbered):
        def answer(self, prompts, numbers, decoding):
            found.append(len(path.read_bytes().splitlines()))
            return super().answer(prompts, numbers, decoding)

    judges = Judges(Verifier("number"))
    tasks = [{"prompt": "P", "solution": "1"}] * 5
    sample_rows(samples_file(path, tasks, {}, ""), lambda: (Looking(), judges), DECODING, batch_size=2)
    assert found == [0, 2, 4]


def test_a_file_made_anew_holds_nothing_of_the_old_one(tmp_path):
    numbered(tmp_path / "fresh.jsonl", 2)
    numbered(tmp_path / "again.jsonl", 5)
    numbered(tmp_path / "again.jsonl", 2, overwrite=True)
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "fresh.jsonl").read_bytes()


def test_the_greedy_answer_stands_apart_where_there_is_one(tmp_path):
    with_greedy, _ = numbered(tmp_path / "a.jsonl", 1)
    assert with_greedy[0]["greedy"]["completion"] == "\\boxed{0}"
    assert len(with_greedy[0]["samples"]) == 2
    without, _ = numbered(tmp_path / "b.jsonl", 1, Decoding(num_samples=3, greedy=False))
    assert "greedy" not in without[0]
    assert len(without[0]["samples"]) == 3


def test_the_bar_counts_problems_from_those_that_are_there(tmp_path, capsys):
    numbered(tmp_path / "rows.jsonl", 2)
    assert "2/2" in capsys.readouterr().err
    numbered(tmp_path / "rows.jsonl", 5, batch_size=3, description="Sampling")
    printed = capsys.readouterr().err
    assert "Sampling:  40%" in printed
    assert "5/5" in printed
    assert re.search(r"[\d?]problem/s|s/problem\b", printed)


def test_golds_that_training_leaves_out_judge_no_answer(judges):
    """`proof` reads as a product of letters, and of a sentence only some answers show that it cannot be judged."""
    answers = [Completion("", False), Completion("\\boxed{7}", False)]
    for gold in ("proof", "a, b and c are equal"):
        (found,) = judges.judge([{"prompt": "Why?", "solution": gold}], [answers])
        assert [(row["correct"], row["reason"], row["strict"]) for row in found] == [(None, "unjudgeable", None)] * 2
        assert [row["boxed"] for row in found] == [False, True]


def test_scores_are_kept_with_what_is_not_a_number(judges):
    def reward_model(prompts, completions, completion_truncated):
        assert prompts == ["P", "P", "Q", "Q"]
        assert completions == ["1", "", "2", "3"]
        assert completion_truncated == [False, True, False, False]
        return [1.0, float("nan"), 2.0, 3.0]

    rows = Judges(judges.lenient, reward_model).judge(
        [{"prompt": "P", "solution": "1"}, {"prompt": "Q", "solution": "2"}],
        [[Completion("1", False), Completion("", True)], [Completion("2", False), Completion("3", False)]],
    )
    assert [[row["score"] for row in group] for group in rows] == [[1.0, None], [2.0, 3.0]]
    assert rows[0][1]["nonfinite"] == "nan"


def test_interrupted_and_gone_on_is_the_unbroken_run_whatever_the_batch(tmp_path, tasks, sampler, judges):
    whole = make(tmp_path / "whole.jsonl", tasks, sampler, judges)
    path = tmp_path / "rows.jsonl"
    with pytest.raises(KeyboardInterrupt):
        make(path, tasks, Stopped(sampler, 2), judges, batch_size=3)
    assert len(path.read_bytes().splitlines()) == 6
    path.write_bytes(path.read_bytes()[:-7])  # torn
    assert make(path, tasks, sampler, judges, batch_size=5)[:5] == make(path, tasks, None, judges)[:5]
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert [{name: row[name] for name in ("prompt", "solution", "samples", "greedy")} for row in whole] == [
        {name: value for name, value in json.loads(line).items() if name != "sampling"}
        for line in path.read_bytes().splitlines()
    ]


def test_more_problems_are_added_to_those_that_are_there(tmp_path, tasks, sampler, judges):
    make(tmp_path / "rows.jsonl", tasks[:3], sampler, judges)
    make(tmp_path / "rows.jsonl", tasks, sampler, judges)
    make(tmp_path / "whole.jsonl", tasks, sampler, judges)
    assert (tmp_path / "rows.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_other_settings_or_problems_are_refused_and_the_file_is_kept(tmp_path, tasks, sampler, judges):
    path = tmp_path / "rows.jsonl"
    make(path, tasks[:2], sampler, judges)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r'made with {"temperature": 1.0} and this run .* {"temperature": 2}. Take'):
        make(path, tasks[:2], None, judges, made_by={"temperature": 2})
    with pytest.raises(InputError, match=r'made with {} and this run .* {"top_k": null}. Take'):
        make(path, tasks[:2], None, judges, made_by={"temperature": 1.0, "top_k": None})
    with pytest.raises(InputError, match="its `prompt`, `solution` differs"):
        make(path, tasks[1:3], None, judges)
    with pytest.raises(InputError, match=r"Row 2 of .* is none of the 1 rows"):
        make(path, tasks[:1], None, judges)
    assert path.read_bytes() == before
    make(path, tasks[1:3], sampler, judges, overwrite=True)
    assert len(path.read_bytes().splitlines()) == 2
