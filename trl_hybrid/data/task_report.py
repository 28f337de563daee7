"""What a run prints about its problems before anything is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low

from trl_hybrid.verifier.verifier import Method


BOXED = "\\boxed"
# Further forms in which the verifier finds an answer, as prompts ask for them.
HASH, TAG = "####", "<answer>"

WIDTH = 200  # characters shown of a rendered prompt
GOLD_WIDTH = 60


@dataclass(frozen=True)
class LeftOut:
    """Rows that are left out for one reason, and the first of them (counted from 0) with its gold."""

    reason: str
    rows: int
    first_row: int
    gold: str

    def text(self) -> str:
        """Return one line."""
        return f"{self.rows}: {self.reason} (first in row {self.first_row}, gold {shortened(self.gold, GOLD_WIDTH)!r})"


@dataclass(frozen=True)
class TaskReport:
    """What was found in a data set.

    Attributes:
        name: Where it comes from.
        rows: Rows that were looked at.
        streamed: Whether more may follow.
        left_out: Rows that are not used, by reason.
        lengths: Tokens of the prompts that are used.
        context: Tokens of the policy's context, `None` where unknown.
        completion: Tokens of it that are kept for the completion.
        rendered: The first prompts as the policy reads them.
        golds: Their golds, as many as are shown.
        has_system: Whether a prompt has a system message.
        method: The verifier's, which says in which form it reads answers.
    """

    name: str
    rows: int
    streamed: bool
    left_out: Sequence[LeftOut]
    lengths: Sequence[int]
    context: int | None
    completion: int
    rendered: Sequence[str]
    golds: Sequence[str]
    has_system: bool
    method: Method = "math_verify"

    def text(self, examples: bool = True) -> str:
        """Return a short block for a person to read."""
        lines = [f"Problems: {self.name}", f"  rows      {self._rows()}"]
        lines += [f"            {part.text()}" for part in self.left_out]
        lines.append(f"  prompts   {self._prompts()}")
        if examples:
            lines.append(f"  answers   {answer_form(self.rendered, self.has_system, self.method)}")
            for number, (prompt, gold) in enumerate(zip(self.rendered, self.golds, strict=False), 1):
                lines.append(f"  {number}         {shortened(prompt, WIDTH)}")
                lines.append(f"            gold: {shortened(gold, GOLD_WIDTH)}")
        return "\n".join(lines)

    def _rows(self) -> str:
        unused = sum(part.rows for part in self.left_out)
        share = f"{unused} left out ({unused / self.rows:.1%})" if unused else "none left out"
        if self.streamed:
            return f"{self.rows} looked at, the first of a stream; {share}, and the like of them as they come"
        return f"{self.rows}, {share}"

    def _prompts(self) -> str:
        counted = f"{median_low(self.lengths)} tokens in the middle, {max(self.lengths)} at most"
        if self.context is None:
            return f"{counted}; the policy names no longest context"
        return f"{counted}; room for {self.context - self.completion} (context {self.context} - {self.completion})"


def answer_form(prompts: Sequence[str], has_system: bool, method: Method = "math_verify") -> str:
    r"""Say in which form the prompts ask for the answer, and warn where the judges expect another.

    What half of the prompts contain is asked for.

    Example:
        >>> answer_form(["Answer in \\boxed{}. What is 1 + 1?"], has_system=True)
        'in \\boxed{}, as the prompts ask'
        >>> answer_form(["End with #### and the number. What is 1 + 1?"], has_system=True, method="strict")
        'behind ####, as the prompts ask and verifier_method strict reads'
    """
    if method == "strict":
        if _asked(HASH, prompts):
            return "behind ####, as the prompts ask and verifier_method strict reads"
        return (
            "WARNING: verifier_method strict reads the number behind #### alone, for which the prompts do not ask: "
            "answers in \\boxed{} are wrong. Leave verifier_method out, or ask for ####"
        )
    if _asked(BOXED, prompts) and _asked(HASH, prompts):
        return "WARNING: the prompts ask for \\boxed{} and for ####. Ask for \\boxed{} alone"
    if _asked(BOXED, prompts):
        return "in \\boxed{}, as the prompts ask"
    for form in (HASH, TAG):
        if _asked(form, prompts):
            return (
                f"WARNING: the prompts ask for {form}, where the verifier finds the answer; the reward model expects "
                "\\boxed{}. Ask for \\boxed{}"
            )
    if has_system:
        return (
            "WARNING: the system prompt does not ask for \\boxed{}, where the verifier and the reward model look. Add "
            "it to --system_prompt"
        )
    return "no form is asked for: right for a policy that answers in \\boxed{} by itself, else set --system_prompt"


def shortened(text: str, width: int) -> str:
    """Put a text on one line and cut its middle out.

    Example:
        >>> shortened("What is the sum of 1, 2 and 3?", 20)
        'What is ... 2 and 3?'
    """
    line = " ".join(text.split())
    if len(line) <= width:
        return line
    half = (width - 5) // 2
    return f"{line[:half].rstrip()} ... {line[-(width - 5 - half) :].lstrip()}"


def _asked(form: str, prompts: Sequence[str]) -> bool:
    return 2 * sum(form in prompt for prompt in prompts) >= len(prompts) > 0
