import logging

import pytest

from trl_hybrid.verifier import MathVerifier, verifier
from trl_hybrid.verifier.faults import contained, report_fault


def broken(*texts):
    if "poison" in texts:
        raise ZeroDivisionError("a rule of ours")


@pytest.fixture(autouse=True)
def _forget_reports():
    report_fault.cache_clear()


def test_a_fault_in_extraction_counts_as_wrong_is_logged_once_and_spares_the_others(monkeypatch, caplog):
    extract = verifier.extract_answer

    def fragile(completion, prompt="", finished=True):
        broken(completion)
        return extract(completion, prompt, finished)

    monkeypatch.setattr(verifier, "extract_answer", fragile)
    rates = {}
    with MathVerifier(num_workers=1) as judge, caplog.at_level(logging.WARNING):
        rewards = judge(
            completions=["poison", "poison", r"\boxed{7}"], solution=["7"] * 3, log_metric=rates.__setitem__
        )
        reasons = [verdict.reason for verdict in judge.verify_batch(["poison", r"\boxed{7}"], ["7", "7"])]
    assert rewards == [0.0, 0.0, 1.0]
    assert reasons == ["error", "exact"]
    assert rates["verifier/error_rate"] == pytest.approx(2 / 3)
    assert len([record for record in caplog.records if "a rule of ours" in record.getMessage()]) == 1


def test_a_fault_in_comparison_is_left_to_the_worker_and_no_other_pair_suffers(monkeypatch):
    quick = verifier.QUICK_RULES["math_verify"]

    def fragile(gold, answer):
        broken(answer)
        return quick(gold, answer)

    monkeypatch.setitem(verifier.QUICK_RULES, "math_verify", fragile)
    with MathVerifier(num_workers=1) as judge:
        verdicts = judge.verify_batch([r"\boxed{poison}", r"\boxed{8}"], ["7", "7"])
        assert judge.verify("", r"\boxed{7}", "7").correct is True
    assert [verdict.correct for verdict in verdicts] == [False, False]


def test_a_fault_inside_the_worker_has_its_reason(monkeypatch):
    from trl_hybrid.verifier import symbolic

    monkeypatch.setattr(symbolic, "compare", lambda gold, answer, algebra: broken("poison"))
    reply = symbolic.judge("x+y", "y+x")
    assert reply["reason"] == "error"
    assert "a rule of ours" in reply["error"]


def test_memory_is_not_a_fault_of_the_rules():
    def hungry():
        raise MemoryError

    with pytest.raises(MemoryError):
        contained(hungry, instead=None)
