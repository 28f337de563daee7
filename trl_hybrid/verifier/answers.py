r"""Where the final answer stands inside a completion. Pure strings, standard library only.

The first of these that is there decides, and nothing later is asked, so that a wrong box is never rescued by the
text around it: the last balanced `\boxed{}` or `\fbox{}`; `#### n`, which is no heading; `<answer>` tags; "the answer
is ..."; the whole text when it is nothing but an answer; the last mathematics or number. The time is linear in the
text's length.
"""

import re
from dataclasses import dataclass

from trl_hybrid.verifier.boxes import end_of, find_boxes, last_box
from trl_hybrid.verifier.claims import solves_on
from trl_hybrid.verifier.cleaning import clean, own_words
from trl_hybrid.verifier.layout import without_programs
from trl_hybrid.verifier.phrases import FILLER, after_answer_phrase, without_phrase
from trl_hybrid.verifier.prose import (
    LATER_CLAUSE,
    MATH,
    PROSE,
    TEXT_COMMAND,
    last_claim,
    without_asides,
    without_delimiters,
)
from trl_hybrid.verifier.verdict import AnswerForm


MAX_TAIL = 4000  # characters at the end in which unmarked answers are looked for

HASH = re.compile(r"#{3,6}[ \t]*([^\n]*)")
MAX_HEADINGS = 64
ANSWER_BELOW = re.compile(r"(?:(?:the|your|my) )?(?:final )?(?:answer|result|solution)?[\s:*_]*", re.IGNORECASE)
NUMBERED = re.compile(r"\(?\d{1,2}[.):]\s+[^\W\d]")
VALUE_WITH_UNIT = re.compile(r"[-+(\\$€£¥*_]*\.?\d[^A-Za-z\n]*(?:\s?(?:[a-z][a-z./^\d²³-]*|%|AM|PM)[,.*_]*){0,5}\.?$")
ANY_WORD = re.compile(
    r"(?<![\\A-Za-z])(?!(?:sqrt|pi|sin|cos|tan|log|ln|exp|and|or|yes|no|true|false)\b)[^\W\d_]{2,}", re.IGNORECASE
)
OPEN_TAG = r"(?:<(?:final_?)?answer>|\[(?:final_?)?answer\])"
TAG = re.compile(
    rf"{OPEN_TAG}((?:(?!{OPEN_TAG}).)*?)(?:</(?:final_?)?answer>|\[/(?:final_?)?answer\]|\Z)",
    re.DOTALL | re.IGNORECASE,
)
JSON_FIELD = re.compile(
    r"[\"'](?:final[_ ]?)?answer[\"']\s*:\s*(\"(?:[^\"\\]|\\.)*\"|'[^']*'|\[[^\]]*\]|[^,}\n]+)", re.IGNORECASE
)
NEXT_PROBLEM = re.compile(
    r"\n[^\S\n]{0,20}\W{0,4}(?:problem|question|exercise|q|user|human|instruction)\s*\d*\s*:", re.IGNORECASE
)
FINAL = re.compile(r"\bfinal answer\b(?=\W*(?:is\b|:)[^.\n]{0,200}(?:\d|\$|\\))", re.IGNORECASE)
ARROW = re.compile(r"^(?:[=-]>|→|⇒|∴)\s*")
# A sentence, and no answer with its unit.
WORD_BEFORE_NUMBER = re.compile(
    r"(?<![\\A-Za-z])(?!(?:and|x?or|in|sqrt|pi|log|ln|exp|(?:arc|a)?(?:sin|cos|tan)h?|[Aa]bs|Integral|mod|base|[A-Z]{2})\b)"
    r"[^\W\d_]{2,}(?![a-zA-Z])(?!\()[^\d\n]*\d"
)


@dataclass(frozen=True, slots=True)
class ExtractedAnswer:
    """A final answer and the form in which it was given."""

    text: str
    form: AnswerForm


def extract_answer(completion: str, prompt: str = "", finished: bool = True) -> ExtractedAnswer | None:
    r"""The final answer of a completion, or `None` when there is none.

    Args:
        completion: The text.
        prompt: Its echo does not count.
        finished: Whether the text came to its end by itself. The last number of one that was cut off is where it
            happened to stop.

    Example:
        >>> extract_answer(r"So 6 + 7 = 13 and the answer is $\boxed{\frac{1}{2}}$.").text
        '\\frac{1}{2}'
        >>> extract_answer("<think>Is it \\boxed{41}?</think> #### 42").text
        '42'
        >>> extract_answer("I do not know.") is None
        True
    """
    text = own_words(clean(completion), clean(prompt))
    if text is None:
        return None
    text = _first_problem(text)
    if boxes := find_boxes(text):
        if final := FINAL.search(text, end_of(text, boxes[-1])):
            return _nonempty(after_answer_phrase(text[final.start() :]) or _box(text, boxes), "box")
        return _nonempty(_box(text, boxes), "box")
    if (line := _behind_hashes(text)) is not None:
        return _nonempty(without_phrase(line), "hash")
    if tags := TAG.findall(text):
        return _nonempty(without_phrase(without_delimiters(tags[-1])), "tag")
    if "{" in text and (fields := JSON_FIELD.findall(text)):
        return _nonempty(fields[-1].strip().strip("\"'[]"), "tag")
    text = without_programs(text)
    if (answer := after_answer_phrase(text)) is not None:
        return _nonempty(answer, "phrase")
    return _nonempty(_whole_or_last(text), "text") if finished else None


def extract_gold(solution: str) -> str:
    r"""The answer inside a reference: a whole solution, or the bare answer that most data sets carry.

    A reference is trusted where a completion is not: boxes that stand close together are one list, and an unclosed
    box counts.

    Example:
        >>> extract_gold(r"We get \boxed{1} or \boxed{-2}."), extract_gold("$x+1$"), extract_gold("7 - 2 = 5 #### 5")
        ('1,-2', 'x+1', '5')
    """
    text = clean(solution).strip()
    if boxes := find_boxes(text):
        return (last_box(text, boxes, trusted=True) or "").strip()
    if (line := _behind_hashes(text)) is not None:
        return line.strip()
    bare = without_delimiters(text)
    if bare != text or not PROSE.search(TEXT_COMMAND.sub("", text)):
        return bare
    answer = after_answer_phrase(text)
    return text if answer is None else answer.strip()


def _behind_hashes(text: str) -> str | None:
    """The last line behind `####` that is an answer and no heading; below "#### Final Answer", the next line.

    What ends the text is an answer, whatever it is; with text below it, it must look like one.
    """
    hashes = list(HASH.finditer(text))[-MAX_HEADINGS:]
    for match in reversed(hashes):
        line, below = match[1].strip(), text[match.end() : match.end() + MAX_TAIL].strip()
        is_marked = match[0].startswith("####")
        if not below and is_marked:
            return line
        if below and not is_marked:  # "### 2" may be the second part's
            continue
        if ANSWER_BELOW.fullmatch(line):
            line = below.partition("\n")[0]
        if not _is_heading(without_phrase(line)):
            return line
    return None


def _is_heading(line: str) -> bool:
    """Whether a line is words, beyond a value and its unit: "Step 1: May", "2. Total", "Conclusion"."""
    if NUMBERED.match(line):
        return True
    bare = MATH.sub("1", TEXT_COMMAND.sub("", line[:MAX_TAIL]))
    return not line.strip() or (ANY_WORD.search(bare) is not None and not VALUE_WITH_UNIT.match(bare))


def _nonempty(answer: str | None, form: AnswerForm) -> ExtractedAnswer | None:
    answer = (answer or "").strip().strip("*`").strip()
    return ExtractedAnswer(answer, form) if answer else None


def _box(text: str, boxes: list[re.Match[str]]) -> str:
    return without_phrase(last_box(text, boxes) or "")


def _first_problem(text: str) -> str:
    """Text up to where the policy, its answer given, runs on with a problem of its own."""
    following = NEXT_PROBLEM.search(text, 1)
    if following is None:
        return text
    before = text[: following.start()]
    marked = (
        find_boxes(before) or _behind_hashes(before) is not None or TAG.search(before) or after_answer_phrase(before)
    )
    return before if marked else text


def _whole_or_last(text: str) -> str | None:
    """All of a text that is nothing but an answer, otherwise its last mathematics or number."""
    text = ARROW.sub("", without_asides(text.strip()[-MAX_TAIL:]).strip("* "))
    if filler := FILLER.match(text):
        text = text[filler.end() :]
    one_line = "\n" not in text and len(text) <= 400
    if one_line:
        text = LATER_CLAUSE.split(text)[-1]
    bare = TEXT_COMMAND.sub("", text)
    is_bare = not MATH.search(text) and not PROSE.search(bare) and not WORD_BEFORE_NUMBER.search(bare)
    if one_line and is_bare and not solves_on(text):
        return text
    if without_delimiters(text) != text:
        return without_delimiters(text)
    return last_claim(text)
