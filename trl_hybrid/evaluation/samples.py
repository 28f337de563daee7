"""Sample answers to problems and judge them, into a file that an interrupted run goes on with."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tqdm.auto import tqdm

from trl_hybrid.data.golds import find_faults
from trl_hybrid.evaluation.rows_file import RowsFile, score_fields
from trl_hybrid.policy.generation import Completion, Decoding
from trl_hybrid.verifier import MathVerifier


UNJUDGED = {"correct": None, "reason": "unjudgeable", "strict": None}
"""What is said about every answer to a problem whose gold cannot be judged."""


class Sampler(Protocol):
    """Anything that answers prompts: `TransformersSampler`, `VllmSampler`."""

    def answer(
        self, prompts: Sequence[list[dict[str, str]]], numbers: Sequence[int], decoding: Decoding
    ) -> list[list[Completion]]:
        """Answer each prompt `decoding.answers` times, the greedy answer first."""
        ...


class Judges:
    """What is said about each answer: the lenient and the strict verdict, and a score where there is a reward model.

    Lenient is `MathVerifier`'s "math_verify", which training uses: every form of answer, equal by string, number or
    algebra. Strict is its "boxed": the last box, equal as a normalised string.
    """

    def __init__(self, lenient: MathVerifier, reward_model: Any = None) -> None:
        self.lenient, self.strict, self.reward_model = lenient, MathVerifier("boxed"), reward_model

    def judge(
        self, tasks: Sequence[dict[str, Any]], answers: Sequence[Sequence[Completion]]
    ) -> list[list[dict[str, Any]]]:
        """Judge each problem's answers.

        A gold by which training would leave its problem out ([`~trl_hybrid.data.golds`]) judges none of them.

        Returns:
            One dictionary an answer: `completion`, `truncated`, the lenient `answer`, `correct` and `reason`, `boxed`
            (whether there is a box), `strict`, and `score` with a reward model.
        """
        flat = [(task, answer) for task, group in zip(tasks, answers, strict=True) for answer in group]
        texts, prompts = [answer.text for _, answer in flat], [task["prompt"] for task, _ in flat]
        golds, cut_off = [task["solution"] for task, _ in flat], [answer.truncated for _, answer in flat]
        lenient = self.lenient.verify_batch(texts, golds, prompts, cut_off)
        strict = self.strict.verify_batch(texts, golds, prompts, cut_off)
        faults = find_faults(self.lenient, golds)
        judged = [
            {
                "completion": answer.text,
                "truncated": answer.truncated,
                "answer": easy.parsed_answer,
                "correct": easy.correct,
                "reason": easy.reason,
                "boxed": hard.parsed_answer is not None,
                "strict": hard.correct,
                **(UNJUDGED if gold in faults else {}),
            }
            for (_, answer), gold, easy, hard in zip(flat, golds, lenient, strict, strict=True)
        ]
        if self.reward_model is not None:
            scores = self.reward_model(prompts, texts, completion_truncated=cut_off)
            judged = [{**row, **score_fields(score)} for row, score in zip(judged, scores, strict=True)]
        rest = iter(judged)
        return [[next(rest) for _ in group] for group in answers]


def sample_rows(
    file: RowsFile,
    prepare: Callable[[], tuple[Sampler, Judges]],
    decoding: Decoding,
    batch_size: int = 16,
    overwrite: bool = False,
    description: str | None = None,
) -> list[dict[str, Any]]:
    """Answer the problems that have no answers yet, and append each batch to the file.

    A problem's answers depend on its number in the file and the seed, so a file that was made in parts holds what one
    made at once does, up to the rounding of logits computed in another batch.

    Args:
        file: From [`samples_file`]; its rows are the problems.
        prepare: Loads what answers and what judges; called only where something is left to answer.
        decoding: How to answer; what `file.made_by` says.
        batch_size: Problems answered at once.
        overwrite: Make the file anew.
        description: Shown before the progress bar.

    Returns:
        The problems, each with `samples`, and `greedy` if `decoding` asks for it.

    Raises:
        InputError: The file holds other problems or was made with other settings.
    """
    done, end = ([], 0) if overwrite else file.read()
    if len(done) == len(file.rows):
        return done
    sampler, judges = prepare()
    file.path.parent.mkdir(parents=True, exist_ok=True)
    with (
        file.path.open("ab") as output,
        tqdm(total=len(file.rows), initial=len(done), unit="problem", desc=description) as bar,
    ):
        output.truncate(end)  # a torn last line, or everything
        while len(done) < len(file.rows):
            start = len(done)
            tasks = file.rows[start : start + batch_size]
            numbers = range(start, start + len(tasks))
            answers = sampler.answer([task["prompt"] for task in tasks], numbers, decoding)
            fresh = [_fields(group, decoding) for group in judges.judge(tasks, answers)]
            lines = [file.line(task, fields) for task, fields in zip(tasks, fresh, strict=True)]
            output.write(b"".join(lines))
            output.flush()
            done += [{**task, **fields} for task, fields in zip(tasks, fresh, strict=True)]
            bar.update(len(tasks))
    return done


def samples_file(path: Any, tasks: Sequence[dict[str, Any]], sampling: dict[str, Any], way_out: str) -> RowsFile:
    """Describe the file of the samples of problems."""
    return RowsFile(path, list(tasks), first="samples", maker="sampling", made_by=sampling, way_out=way_out)


def _fields(judged: list[dict[str, Any]], decoding: Decoding) -> dict[str, Any]:
    greedy = {"greedy": judged[0]} if decoding.greedy else {}
    return {"samples": judged[int(decoding.greedy) :], **greedy}
