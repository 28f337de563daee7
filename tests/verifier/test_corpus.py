"""The verifier on labelled cases: `cases/verifier_cases.jsonl` and `cases/hostile_cases.jsonl`."""

import threading
import time

import pytest

from trl_hybrid.verifier import MathVerifier, extract_answer, extract_gold
from trl_hybrid.verifier.equivalence import compare_without_algebra
from trl_hybrid.verifier.verdict import is_right


def columns(rows, text="completion"):
    return [row[text] for row in rows], [row["gold"] for row in rows]


@pytest.fixture(scope="module")
def verdicts(verifier, cases):
    return verifier.verify_batch(*columns(cases, "text"))


def test_core_cases_agree_at_97_percent_with_at_most_two_wrong_accepts(cases, verdicts):
    core = [(row, verdict) for row, verdict in zip(cases, verdicts, strict=True) if row["core"]]
    wrong = [row for row, verdict in core if (verdict.correct is True) != row["expected"]]
    accepts = [row for row in wrong if not row["expected"]]
    assert len(core) == 297
    assert len(wrong) <= 0.03 * len(core), [(row["source"], row["gold"], row["completion"][-80:]) for row in wrong]
    assert len(accepts) <= 2, [(row["source"], row["gold"], row["completion"][-80:]) for row in accepts]


def test_real_core_cases_agree_at_97_percent_with_at_most_two_wrong_accepts(verifier, real):
    core = [row for row in real if row["core"]]
    found = verifier.verify_batch(*columns(core, "text"))
    wrong = [row for row, verdict in zip(core, found, strict=True) if (verdict.correct is True) != row["expected"]]
    assert len(core) == 228
    assert len(wrong) <= 0.03 * len(core), [(row["source"], row["gold"], row["completion"][-80:]) for row in wrong]
    assert sum(not row["expected"] for row in wrong) <= 2


def test_handmade_cases_get_the_verdict_set_by_hand(verifier, handmade):
    found = verifier.verify_batch(*columns(handmade))
    wrong = [
        (row, verdict) for row, verdict in zip(handmade, found, strict=True) if verdict.correct is not row["expected"]
    ]
    judged_wrong = [(row, verdict.reason) for row, verdict in wrong if row["expected"] or verdict.correct]
    assert judged_wrong == []


def test_plain_sentences_agree_at_97_percent_with_at_most_two_wrong_accepts(verifier, prose):
    found = verifier.verify_batch(*columns(prose))
    wrong = [row for row, verdict in zip(prose, found, strict=True) if verdict.correct is not row["expected"]]
    assert len(wrong) <= 0.03 * len(prose), wrong
    assert sum(not row["expected"] for row in wrong) <= 2


def test_blank_golds_of_the_corpus_are_unjudgeable(cases, verdicts):
    blank = [verdict for row, verdict in zip(cases, verdicts, strict=True) if row["gold"] in ("", "None")]
    assert blank
    assert {verdict.reason for verdict in blank} == {"unjudgeable"}


def test_fast_path_and_memo_say_what_the_worker_says(verifier, cases, verdicts):
    assert verifier.verify_batch(*columns(cases, "text")) == verdicts
    pool = verifier._pool
    for row, verdict in zip(cases, verdicts, strict=True):
        answer = extract_answer(row["text"])
        if answer is None or verdict.reason == "unjudgeable":
            continue
        gold = extract_gold(row["gold"])
        quick = compare_without_algebra(gold, answer.text)
        full = pool.submit(gold, answer.text)
        assert is_right(full.result(timeout=60)[0]) == verdict.correct
        assert quick is None or is_right(quick) == verdict.correct


def test_verdicts_from_a_thread_are_the_same(cases, verdicts):
    found = []
    with MathVerifier(num_workers=2) as fresh:
        thread = threading.Thread(target=lambda: found.extend(fresh.verify_batch(*columns(cases, "text"))))
        thread.start()
        thread.join(timeout=100)
    assert [verdict.correct for verdict in found] == [verdict.correct for verdict in verdicts]


def test_hostile_answers_get_the_right_verdict_and_cost_this_process_nothing(verifier, hostile):
    for row in hostile:
        start = time.process_time()
        verdict = verifier.verify("", row["completion"], row["gold"])
        assert time.process_time() - start < 2.0, row["why"]
        assert (verdict.correct is True) == row["expected"] or row["either_ok"], (row["why"], verdict)


def test_a_batch_of_hostile_answers_ends_and_spares_the_rest(hostile):
    hostile_pairs = [(rf"\boxed{{\binom{{9999}}{{5000}}^{{{power}}}}}", "7") for power in range(19_000, 19_004)]
    honest_pairs = [(rf"\boxed{{x + {number} + x}}", f"2x+{number}") for number in range(20)]
    completions, golds = zip(*(hostile_pairs + honest_pairs), strict=True)
    with MathVerifier(num_workers=2, timeout=1.0) as verifier:
        verdicts = verifier.verify_batch(completions, golds)
    assert [verdict.reason for verdict in verdicts[:4]] == ["timeout"] * 4
    assert all(verdict.correct for verdict in verdicts[4:])
