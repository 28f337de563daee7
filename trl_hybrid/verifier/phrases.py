r"""What a phrase such as "the answer is", "A:" or "option B is correct" says. Pure strings."""

import re

from trl_hybrid.verifier.boxes import PERCENT_AFTER
from trl_hybrid.verifier.latex import EMPTY, normalize
from trl_hybrid.verifier.prose import MATH, PROSE, TEXT_COMMAND, last_claim, later_claim, without_delimiters
from trl_hybrid.verifier.unworked import is_arithmetic
from trl_hybrid.verifier.values import NUMBER
from trl_hybrid.verifier.wordings import DENIED_BEHIND, DOUBTED


MAX_MARKED = 4000  # characters of a marked answer in which a phrase is looked for

LABEL = re.compile(r"^(?:[^\w\n]|_){0,12}(?:ans|a|answer|result)\s*[:=：]\s*(?=\S)", re.IGNORECASE | re.MULTILINE)
ANSWER_WORD = re.compile(
    r"\b(?:answers?|ans\.|correct (?:option|choice))|\b(?:réponse|respuesta|risposta|resposta|antwort"
    r"|odpowiedź)\b|答案|ответ",
    re.IGNORECASE,
)
# A number may stand between the word and its link, as in "The answer to 12 + 30 is": `=` is none, but right behind it.
ANSWER_LINK = re.compile(
    r"[^.\n:：]{0,60}?(?:\bis\b|\bare\b|\best\b|\bes\b|\bist\b|\b(?:would|should|must|will) be\b|[:：是为]"
    r"|(?<=nswer) ?=|(?<=nswer) [-–—](?= ))[\s*:]*",
    re.IGNORECASE,
)
# What the answer is, behind what it is not: "not 42 but 41", "isn't 42, it's 41".
CONTRAST = re.compile(
    r"[^.\n]{0,60}?(?:\bbut(?: rather)?|[,;]\s*(?:it is|it's|it’s|rather))\s+(?:is\s+)?", re.IGNORECASE
)
NEGATED_LINK = re.compile(
    r"[^.\n:：]{0,60}?\b(?:(?:is|are|was|should|would|could|can|must|will)(?:n't|n’t|\s?not)|can't|won't)\b",
    re.IGNORECASE,
)
CHOICE_IN_PROSE = re.compile(
    r"(?:故选|应选|选择|选项|选)\s*[:：]?\s*[(（]?\s*([A-J])(?![a-zA-Z])"
    r"|\b(?:[Oo]ptions?|[Cc]hoice)\s*\(?([A-J])\)?\s+is (?:the )?(?:correct|right)"
    r"|\b(?:choose|chose|pick|select)\s+(?:(?:option|choice|answer)\s+)?\(?([A-J])(?:\)|\b)",
)
GOES_ON = re.compile(r"\s*(?:or\b|and\b|,|[-+*/=<>^])\s*[-+$\\\d(]")
FILLER = re.compile(
    r"(?:(?:is|are|equals?|simply|just|exactly|approximately|about|around|roughly|clearly|probably|likely|so|thus|hence"
    r"|therefore|equal to"
    r"|option|choice)\b[\s:,]*)+",
    re.IGNORECASE,
)
WORD_HEAD = re.compile(
    r"\(?([A-J]|yes|no|true|false)\)?(?=\s*(?:$|[.,:;)]|\b(?:because|since|as|for)\b))", re.IGNORECASE
)
REASON = re.compile(
    r"[\s,;]+(?:because|since|as|which|where)\b.*|,\s*(?:and |but )?not\b.*|,\s*I (?:think|believe)\b.*"
    r"|\s(?:rather than|instead of)\b.*",
    re.DOTALL,
)

# What a sum comes to, behind it: "22 + 46, which is 68".
WORKED_OUT = re.compile(
    r"[\s,;]*which\s+(?:is|equals?|makes|gives|comes to)\s+(?:equal to\s+)?(?=[-$\\]?\d)", re.IGNORECASE
)


def after_answer_phrase(text: str) -> str | None:
    """What the last "answer is", "A:" or "option B is correct" says.

    Returns:
        `None` when no such phrase is followed by anything, an empty string when all that is said is what it is not.
    """
    text = TEXT_COMMAND.sub(lambda match: match[1] if ANSWER_WORD.search(match[1]) else match[0], text)
    anchors = sorted(
        (match for pattern in (ANSWER_WORD, LABEL, CHOICE_IN_PROSE) for match in pattern.finditer(text)),
        key=lambda match: match.end(),
    )
    negated = False
    for anchor in reversed(anchors[-12:]):
        if anchor.re is CHOICE_IN_PROSE:
            return next(group for group in anchor.groups() if group)
        link = anchor if anchor.re is LABEL else ANSWER_LINK.match(text, anchor.end())
        if DOUBTED.search(text, max(0, anchor.start() - 40), anchor.start()):
            return ""
        denial = NEGATED_LINK.match(text, anchor.end())
        if denial and (link is None or denial.end() <= link.end()):
            negated = True
            contrast = CONTRAST.match(text, denial.end())
            if contrast and (answer := _said_behind(text, contrast.end())) is not None:
                return answer
        elif link is not None and (answer := _said_behind(text, link.end())) is not None:
            return answer
    return "" if negated else None


def _said_behind(text: str, start: int) -> str | None:
    """The answer behind a link. On a new line it is one only where nothing else stands on that line."""
    tail = text[start : start + 2000]
    if (later := later_claim(tail)) is not None:
        return later
    if "\n" in text[start - 3 : start] + tail[: len(tail) - len(tail.lstrip())]:
        line = tail.strip().partition("\n")[0]
        if PROSE.search(TEXT_COMMAND.sub("", MATH.sub("", line))) and not ANSWER_WORD.search(line):
            return None
    return _head_of(tail)


def without_phrase(answer: str) -> str:
    """A marked answer without the "The answer is" that stands inside its mark."""
    if len(answer) < MAX_MARKED and len(ANSWER_WORD.findall(answer)) == 1:
        return after_answer_phrase(answer) or answer
    return answer


def _head_of(tail: str) -> str | None:
    """The answer at the head of the text behind an answer phrase."""
    tail = tail.lstrip(" \n\t*_`\"'")
    if filler := FILLER.match(tail):
        tail = tail[filler.end() :]
    if word := WORD_HEAD.match(tail):
        return word[0]
    sentence = re.split(r"\n|(?<=[^\d.\s])\.(?=\s|$)|(?<=\d)\.(?=\s|$)|。", tail, maxsplit=1)[0].strip(" *_`\"'")
    whole, sentence = sentence, REASON.sub("", sentence)
    if is_arithmetic(sentence) and (worked_out := WORKED_OUT.match(whole, len(sentence))):
        return _head_of(whole[worked_out.end() :])
    if normalize(sentence) == EMPTY:
        return sentence
    display = MATH.match(tail)
    if display and (display[1] or display[2]):
        return without_delimiters(display[0])
    if not sentence:
        return None
    head = display or NUMBER.match(sentence)
    if head is not None and DENIED_BEHIND.match(whole, head.end()):
        return ""
    if head is not None and display is None and not PROSE.search(sentence):
        return sentence
    if head is not None and not GOES_ON.match(sentence, head.end()):
        return _with_percent(sentence, head)
    if not PROSE.search(TEXT_COMMAND.sub("", MATH.sub("", sentence))):
        return without_delimiters(sentence)
    return last_claim(sentence)


def _with_percent(text: str, math: re.Match[str]) -> str:
    return without_delimiters(math[0]) + ("\\%" if PERCENT_AFTER.match(text, math.end()) else "")
