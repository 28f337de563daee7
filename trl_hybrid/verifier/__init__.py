"""The rule-based judge: see `MathVerifier`."""

from trl_hybrid.verifier.answers import ExtractedAnswer, extract_answer, extract_gold
from trl_hybrid.verifier.equivalence import is_blank
from trl_hybrid.verifier.verdict import Reason, Verdict
from trl_hybrid.verifier.verifier import MathVerifier, Method


__all__ = [
    "ExtractedAnswer",
    "MathVerifier",
    "Method",
    "Reason",
    "Verdict",
    "extract_answer",
    "extract_gold",
    "is_blank",
]
