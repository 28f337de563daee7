"""The public class as a judge and as a TRL reward function."""

import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from trl_hybrid.verifier import MathVerifier


def messages(text):
    return [{"role": "assistant", "content": text}]


def test_a_verdict_holds_the_reward_the_answer_and_the_reason(verifier):
    verdict = verifier.verify("What is half of 1?", r"It is $\boxed{0.5}$.", r"\frac{1}{2}")
    assert (verdict.correct, verdict.reward, verdict.parsed_answer, verdict.reason) == (True, 1.0, "0.5", "numeric")
    verdict = verifier.verify(None, "I do not know.", "1")
    assert (verdict.correct, verdict.reward, verdict.parsed_answer, verdict.reason) == (False, 0.0, None, "no_answer")
    verdict = verifier.verify(None, r"\boxed{1}", " ")
    assert (verdict.correct, verdict.reward, verdict.parsed_answer, verdict.reason) == (None, None, "1", "unjudgeable")


def test_it_is_a_reward_function_for_strings_and_messages(verifier):
    prompts = [messages("2+2?")] * 3
    completions = [messages(r"\boxed{4}"), messages("5"), messages("4")]
    rewards = verifier(
        prompts=prompts, completions=completions, solution=["4", "4", None], trainer_state=None, level=[1, 2, 3]
    )
    assert rewards == [1.0, 0.0, None]
    assert verifier.__name__ == "math_verifier"


def test_rewards_are_the_configured_ones():
    verifier = MathVerifier(correct_reward=2.0, format_reward=0.5)
    assert verifier(None, [r"\boxed{4}", r"\boxed{5}", "so it is 5"], ["4"] * 3) == [2.0, 0.5, 0.0]


def test_the_echo_of_a_prompt_in_messages_does_not_count(verifier):
    prompt = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": r"Is it \boxed{42}, as they say?"},
    ]
    assert verifier.verify(prompt, r"Is it \boxed{42}, as they say? Yes.", "42").parsed_answer == "Yes."


def test_content_parts_are_joined(verifier):
    parts = [{"role": "assistant", "content": [{"type": "text", "text": r"\boxed{4"}, {"type": "text", "text": "2}"}]}]
    assert verifier.verify(None, parts, 42).correct


def test_columns_and_rates_are_logged(verifier):
    extra, metrics = {}, {}
    verifier(
        ["", "", "", ""],
        [r"\boxed{4}", "I do not know.", r"\boxed{5}", r"\boxed{2^{10^{11}}}"],
        solution=["#### 4", "4", " ", "4"],
        log_extra=extra.__setitem__,
        log_metric=metrics.__setitem__,
    )
    assert extra == {
        "gold": ["4", "4", "", "4"],
        "extracted_answer": ["4", "", "5", "2^{10^{11}}"],
        "reason": ["exact", "no_answer", "unjudgeable", "guard"],
        "answer_form": ["box", "", "box", "box"],
    }
    assert {name: metrics[f"verifier/{name}_rate"] for name in ("timeout", "no_answer", "unjudgeable")} == {
        "timeout": 0.0,
        "no_answer": 0.25,
        "unjudgeable": 0.25,
    }
    assert 0 <= metrics["verifier/ms_p50"] <= metrics["verifier/ms_p95"] <= metrics["verifier/ms_max"] < 1000


def test_prefetch_returns_at_once_and_the_batch_only_collects():
    completions, golds = [r"\boxed{\binom{9999}{5000}^{20000}}", r"\boxed{b+a}"], ["7", "a+b"]
    with MathVerifier(num_workers=2, timeout=1.0) as verifier:
        ahead = seconds(lambda: verifier.prefetch(completions, golds))
        judged, again = [], []
        collected = seconds(lambda: judged.extend(verifier.verify_batch(completions, golds)))
        remembered = seconds(lambda: again.extend(verifier.verify_batch(completions, golds)))
    assert [verdict.reason for verdict in judged] == [verdict.reason for verdict in again] == ["timeout", "symbolic"]
    assert max(ahead, remembered) < collected  # which waits for a second of a worker's CPU time


def seconds(action):
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


@pytest.fixture
def extracted(monkeypatch):
    """The completions that an answer was extracted from, and whether they counted as finished."""
    from trl_hybrid.verifier import verifier

    found, extract = [], verifier.extract_answer

    def watched(completion, prompt="", finished=True):
        found.append((completion, finished))
        return extract(completion, prompt, finished)

    monkeypatch.setattr(verifier, "extract_answer", watched)
    return found


def test_what_was_begun_ahead_is_extracted_once_and_serves_one_call(extracted):
    columns = ["So it is 42", "So it is 42"], ["42", "42"], [messages("What?"), messages("What?")], [False, True]
    with MathVerifier(num_workers=1) as verifier:
        verifier.prefetch(*columns)
        assert extracted == [("So it is 42", True), ("So it is 42", False)]
        completions, solution, prompts, cut_off = columns
        for expected in (2, 4):
            assert verifier(prompts, completions, solution, completion_truncated=cut_off) == [1.0, 0.0]
            assert len(extracted) == expected


def test_what_was_begun_ahead_is_of_no_use_to_other_rows(extracted):
    completions, golds = [messages("So it is 42")], ["42"]
    with MathVerifier(num_workers=1) as verifier:
        verifier.prefetch(completions, golds)
        assert verifier(None, completions, golds, completion_truncated=[True]) == [0.0]
        verifier.prefetch(completions, golds)
        assert verifier(None, completions, ["41"]) == [0.0]
        verifier.prefetch(completions, golds)
        completions[0][-1]["content"] = "So it is 43"
        assert verifier(None, completions, golds) == [0.0]
        assert verifier(["So it is 43"], completions, golds) == [0.0]
        assert [text for text, _ in extracted[-3:]] == ["So it is 42", "So it is 43", "So it is 43"]


def test_what_was_begun_ahead_ends_with_the_workers():
    rows = [r"\boxed{\binom{9999}{5000}^{20000}}", r"\boxed{y+x}"], ["7", "x+y"]
    with MathVerifier(num_workers=1, timeout=1.0) as verifier:
        verifier.prefetch(*rows)
        verifier.close()
        assert [verdict.reason for verdict in verifier.verify_batch(*rows)] == ["timeout", "symbolic"]


def test_it_is_picklable_before_and_after_use(verifier):
    fresh = pickle.loads(pickle.dumps(MathVerifier(method="strict", format_reward=0.1)))
    assert fresh(None, ["#### 4", "#### 5"], ["4", "4"]) == [1.0, 0.1]
    verifier.verify(None, r"\boxed{y+x}", "x+y")
    verifier.prefetch([r"\boxed{y+2x}"], ["2x+y"])
    with pickle.loads(pickle.dumps(verifier)) as copy:
        assert copy.worker_pids() == []
        assert copy.verify(None, r"\boxed{y+x}", "x+y").correct


def test_no_workers_judges_in_this_process_and_says_so():
    with pytest.warns(UserWarning, match="without deadline"):
        verifier = MathVerifier(num_workers=0)
    assert verifier.verify(None, r"\boxed{y+x}", "x+y").reason == "symbolic"
    assert verifier.worker_pids() == []


def test_memo_is_bounded(monkeypatch):
    monkeypatch.setattr("trl_hybrid.verifier.verifier.MEMO_SIZE", 10)
    verifier = MathVerifier()
    verifier.verify_batch([rf"\boxed{{{k}}}" for k in range(50)], ["1"] * 50)
    assert len(verifier._memo) == 10


def test_a_column_of_numbers_is_a_column_of_solutions(verifier):
    assert verifier(None, [r"\boxed{4}", r"\boxed{0.5}", r"\boxed{x}"], [4, 0.5, float("nan")]) == [1.0, 1.0, None]


@pytest.mark.parametrize("text", ["\ud800", "x\x00+y", "\x00", "y\ud800+x"])
def test_lone_surrogates_and_nul_bytes_reach_a_verdict(verifier, text):
    assert verifier.verify(text, rf"\boxed{{{text}}}", "x^2+y").correct is False
    assert verifier.verify(None, r"\boxed{x^2+y}", text).reason in ("mismatch", "unjudgeable")


@pytest.mark.parametrize("unit", ["x+", "{", "1", r"\frac{", "a ", "%"])
def test_a_giant_gold_is_unjudgeable_at_once(verifier, unit):
    start = time.perf_counter()
    assert verifier.verify(None, r"\boxed{x}", unit * (500_000 // len(unit))).correct is None
    assert time.perf_counter() - start < 2.0


def test_threads_share_one_verifier(verifier):
    rows = [(rf"\boxed{{x+{number}+x}}", f"2x+{number % 7}") for number in range(40)]
    completions, golds = zip(*rows, strict=True)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: verifier.verify_batch(completions, golds), range(8)))
    assert [verdict.correct for verdict in found[0]] == [number < 7 for number in range(40)]
    assert all(verdicts == found[0] for verdicts in found)


def test_an_empty_batch_is_fine(verifier):
    assert verifier.verify_batch([], []) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"correct_reward": 0.5, "format_reward": 0.5}, "correct_reward must be greater than format_reward"),
        ({"format_reward": -0.1}, "correct_reward must be greater than format_reward"),
        ({"method": "sympy"}, "method must be one of math_verify, boxed, strict, flexible; got 'sympy'"),
        ({"timeout": 0}, "timeout must be above 0"),
        ({"memory_limit_mb": 10}, "memory_limit_mb at least 256"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MathVerifier(**settings)


@pytest.mark.parametrize(
    ("completions", "solution", "error", "message"),
    [
        ([3], ["1"], TypeError, r"completions\[0\] must be a string or a list of messages .*got int 3"),
        (["1", [{"role": "assistant"}]], ["1", "1"], TypeError, r"completions\[1\] must be"),
        ([[{"role": "assistant", "content": 3}]], ["1"], TypeError, r"completions\[0\] must have a string"),
        ("1", ["1"], TypeError, "completions must be a list"),
        (["1"], None, TypeError, "column `solution`"),
        (["1"], "1", TypeError, "solution must be a list"),
        (["1"], [{"a": 1}], TypeError, r"solution\[0\] must be a string, a number or a list of them, got dict"),
        (["1", "2"], ["1"], ValueError, "solution must have one entry per completion, got 1 for 2 completions"),
    ],
)
def test_bad_rows_are_errors_that_name_the_argument(verifier, completions, solution, error, message):
    with pytest.raises(error, match=message):
        verifier(prompts=None, completions=completions, solution=solution)


def test_workers_are_shared_out_between_the_processes_of_a_machine(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
    assert MathVerifier().num_workers == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert MathVerifier().num_workers == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert MathVerifier().num_workers == 1


def test_what_a_cut_off_completion_ends_with_is_no_answer_but_what_it_has_marked_is():
    texts = ["So 40 and 2 make 42", "So 40 and 2 make 42", "The answer is 42. Then 5", r"\boxed{42} and 7"]
    cut_off = [False, True, True, True]
    assert MathVerifier()(None, texts, ["42"] * 4, completion_truncated=cut_off) == [1.0, 0.0, 1.0, 1.0]


def test_right_answers_are_counted_by_the_form_that_they_have():
    metrics = {}
    texts = [r"\boxed{4}", "The answer is 4.", "The answer is 4.", "That makes 4 of them.", r"\boxed{5}"]
    MathVerifier()(None, texts, ["4"] * 5, log_metric=metrics.__setitem__)
    shares = {name.removeprefix("verifier/right_in_"): share for name, share in metrics.items() if "right_in" in name}
    assert shares == {"box": 0.25, "hash": 0.0, "tag": 0.0, "phrase": 0.5, "text": 0.25}


@pytest.mark.parametrize(
    ("prompt", "boxed", "warned"),
    [(r"Put it in \boxed{}.", 1, True), (r"Put it in \boxed{}.", 2, False), ("What is it?", 1, False)],
)
def test_it_is_said_once_where_hardly_any_answer_is_in_the_form_asked_for(caplog, prompt, boxed, warned):
    texts = [r"\boxed{4}"] * boxed + ["The answer is 4."] * (20 - boxed)
    verifier = MathVerifier()
    for _ in range(2):
        verifier([prompt] * 20, texts, ["4"] * 20)
    assert caplog.text.count("20 completions 1 give their answer in the form that the prompt asks for") == warned
    assert len(caplog.records) == warned
