"""Which gold answers no completion can be judged against."""

from collections.abc import Iterable

from tqdm import tqdm

from trl_hybrid.verifier import MathVerifier, extract_answer, is_blank
from trl_hybrid.verifier.equivalence import compare_without_algebra
from trl_hybrid.verifier.latex import normalize
from trl_hybrid.verifier.shapes import is_prose
from trl_hybrid.verifier.verdict import is_right
from trl_hybrid.verifier.verifier import MAX_LENGTH


# What data sets write where a problem asks for a proof, or where no answer was found (NuminaMath-1.5).
PLACEHOLDERS = frozenset({"proof", "notfound", "not found", "unknown"})

# Any gold can be told from this number by a verifier that can read the gold.
OTHER_ANSWER = "7919"

NO_FINAL_ANSWER = "the gold is no final answer"

SAMPLE = 1000  # distinct golds that the verifier itself is asked about

BAR_FROM = 20_000  # distinct golds that take longer than a second or two


def gold_fault(gold: str) -> str | None:
    r"""Say why a gold cannot be judged, as far as rules without algebra tell.

    A gold must be an answer, and must be called right when it is given back in a box.

    Example:
        >>> gold_fault("proof"), gold_fault(""), gold_fault(r"\frac{1}{2}")
        ('the gold is a placeholder', 'the gold is blank', None)
    """
    if is_blank(gold):
        return "the gold is blank"
    if gold.strip(" .").lower() in PLACEHOLDERS:
        return "the gold is a placeholder"
    if len(gold) > MAX_LENGTH:
        return f"the gold is longer than {MAX_LENGTH} characters"
    if is_prose(normalize(gold)):
        return NO_FINAL_ANSWER
    given_back = extract_answer(boxed(gold))
    same = compare_without_algebra(gold, given_back.text) if given_back else None
    return None if same is not None and is_right(same) else "the gold in a box does not match itself"


def find_faults(verifier: MathVerifier, golds: Iterable[str]) -> dict[str, str]:
    """Find the golds that cannot be judged, and why: all of them by rules, the first thousand by the verifier too.

    Args:
        verifier: Judges each gold against another answer: against itself any text is right.
        golds: Gold answers; equal ones are looked at once.
    """
    distinct = list(dict.fromkeys(golds))
    bar = tqdm(distinct, desc="Checking gold answers", leave=False, disable=len(distinct) < BAR_FROM)
    faults = {gold: fault for gold in bar if (fault := gold_fault(gold))}
    sample = [gold for gold in distinct if gold not in faults][:SAMPLE]
    verdicts = verifier.verify_batch([boxed(OTHER_ANSWER)] * len(sample), sample)
    unjudgeable = [gold for gold, verdict in zip(sample, verdicts, strict=True) if verdict.reason == "unjudgeable"]
    return faults | dict.fromkeys(unjudgeable, NO_FINAL_ANSWER)


def boxed(answer: str) -> str:
    """Give an answer as the policy is asked to."""
    return f"The answer is \\boxed{{{answer}}}."
