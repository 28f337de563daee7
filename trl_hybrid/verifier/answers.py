r"""Where the final answer stands inside a completion. Pure strings, standard library only.

The first of these that is there decides, and nothing later is asked, so that a wrong box is never rescued by the
text around it: the last balanced `\boxed{}` or `\fbox{}`; `#### n`; `<answer>` tags; "the answer is ..."; the whole
text when it is nothing but an answer; the last mathematics or number. The time is linear in the text's length.
"""

import re
import unicodedata
from dataclasses import dataclass

from trl_hybrid.verifier.boxes import BOX, PERCENT_AFTER, last_box
from trl_hybrid.verifier.prose import DENIED_BEHIND, DOUBTED, LATER_CLAUSE, MATH, PROSE, TEXT_COMMAND, last_claim, later_claim, without_asides, without_delimiters
from trl_hybrid.verifier.values import NUMBER
from trl_hybrid.verifier.verdict import AnswerForm


REASONING_END = re.compile(r"</(?:think|thinking|thought|reasoning)>|◁/think▷")
REASONING_START = re.compile(r"<(?:think|thinking|thought|reasoning)>|◁think▷")
TURN_TOKEN = re.compile(r"<\|[a-z_]{2,20}\|>|</s>|<s>|<eos>|<end_of_turn>|<start_of_turn>")

INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff\ue000\ue001]")
# NFKC would make x² into x2 and 1½ into 11⁄2.
SUPERSCRIPTS = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
VULGAR_FRACTIONS = re.compile("[¼½¾⅐-⅞]")

MAX_TAIL = 4000  # characters at the end in which unmarked answers are looked for

HASH = re.compile(r"####[ \t]*([^\n]*)")
OPEN_TAG = r"(?:<(?:final_?)?answer>|\[(?:final_?)?answer\])"
TAG = re.compile(
    rf"{OPEN_TAG}((?:(?!{OPEN_TAG}).)*?)(?:</(?:final_?)?answer>|\[/(?:final_?)?answer\]|\s*$)",
    re.DOTALL | re.IGNORECASE,
)
JSON_FIELD = re.compile(
    r"[\"'](?:final[_ ]?)?answer[\"']\s*:\s*(\"(?:[^\"\\]|\\.)*\"|'[^']*'|\[[^\]]*\]|[^,}\n]+)", re.IGNORECASE
)
LABEL = re.compile(r"^(?:[^\w\n]|_){0,12}(?:ans|a|answer|result)\s*[:=：]\s*(?=\S)", re.IGNORECASE | re.MULTILINE)
NEXT_PROBLEM = re.compile(
    r"\n[^\S\n]{0,20}\W{0,4}(?:problem|question|exercise|q|user|human|instruction)\s*\d*\s*:", re.IGNORECASE
)
FINAL = re.compile(r"\bfinal answer\b(?=\W*(?:is\b|:)[^.\n]{0,200}(?:\d|\$|\\))", re.IGNORECASE)
ANSWER_WORD = re.compile(r"\b(?:answers?|ans\.|correct (?:option|choice))|\b(?:réponse|respuesta|risposta|resposta|antwort|odpowiedź)\b|答案|ответ", re.IGNORECASE)
# A number may stand between the word and its link, as in "The answer to 12 + 30 is": `=` is none, but right behind it.
ANSWER_LINK = re.compile(
    r"[^.\n:：]{0,60}?(?:\bis\b|\bare\b|\best\b|\bes\b|\bist\b|\b(?:would|should|must|will) be\b|[:：是为]|(?<=nswer) ?=|(?<=nswer) [-–—](?= ))[\s*:]*",
    re.IGNORECASE,
)
# What the answer is, behind what it is not: "not 42 but 41", "isn't 42, it's 41".
CONTRAST = re.compile(r"[^.\n]{0,60}?(?:\bbut(?: rather)?|[,;]\s*(?:it is|it's|it’s|rather))\s+(?:is\s+)?", re.IGNORECASE)
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
    r"(?:(?:is|are|equals?|simply|just|exactly|approximately|about|around|roughly|clearly|so|thus|hence|therefore|equal to"
    r"|option|choice)\b[\s:,]*)+",
    re.IGNORECASE,
)
WORD_HEAD = re.compile(
    r"\(?([A-J]|yes|no|true|false)\)?(?=\s*(?:$|[.,:;)]|\b(?:because|since|as|for)\b))", re.IGNORECASE
)
ARROW = re.compile(r"^(?:[=-]>|→|⇒|∴)\s*")
# A sentence, and no answer with its unit.
WORD_BEFORE_NUMBER = re.compile(
    r"(?<![\\A-Za-z])(?!(?:and|x?or|in|sqrt|pi|log|ln|exp|(?:arc|a)?(?:sin|cos|tan)h?|[Aa]bs|Integral|mod|base|[A-Z]{2})\b)"
    r"[^\W\d_]{2,}(?![a-zA-Z])(?!\()[^\d\n]*\d"
)
REASON = re.compile(
    r"[\s,;]+(?:because|since|as|which|where)\b.*|,\s*(?:and |but )?not\b.*|\s(?:rather than|instead of)\b.*", re.DOTALL
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
    text = _own_words(clean(completion), clean(prompt))
    if text is None:
        return None
    text = _first_problem(text)
    if boxes := list(BOX.finditer(text)):
        if final := FINAL.search(text, boxes[-1].end()):
            return _nonempty(_after_answer_phrase(text[final.start() :]) or _box(text, boxes), "box")
        return _nonempty(_box(text, boxes), "box")
    if hashes := HASH.findall(text):
        return _nonempty(_without_phrase(hashes[-1]), "hash")
    if tags := TAG.findall(text):
        return _nonempty(_without_phrase(without_delimiters(tags[-1])), "tag")
    if "{" in text and (fields := JSON_FIELD.findall(text)):
        return _nonempty(fields[-1].strip().strip("\"'[]"), "tag")
    if (answer := _after_answer_phrase(text)) is not None:
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
    if boxes := list(BOX.finditer(text)):
        return (last_box(text, boxes, trusted=True) or "").strip()
    if hashes := HASH.findall(text):
        return hashes[-1].strip()
    bare = without_delimiters(text)
    if bare != text or not PROSE.search(TEXT_COMMAND.sub("", text)):
        return bare
    answer = _after_answer_phrase(text)
    return text if answer is None else answer.strip()


def clean(text: str) -> str:
    r"""Text in NFKC with ASCII digits and without control and zero-width characters.

    Example:
        >>> clean("４２ ٤٢ x² 1½")
        '42 42 x^{2} 1\\frac{1}{2}'
    """
    text = INVISIBLE.sub("", text)
    if text.isascii():
        return text
    text = SUPERSCRIPTS.sub(lambda match: "^{" + unicodedata.normalize("NFKC", match[0]) + "}", text)
    text = VULGAR_FRACTIONS.sub(_spell_fraction, text)
    text = unicodedata.normalize("NFKC", text)
    return "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)


def _spell_fraction(match: re.Match[str]) -> str:
    numerator, _, denominator = unicodedata.normalize("NFKC", match[0]).partition("\u2044")
    return rf"\frac{{{numerator}}}{{{denominator}}}"


def _nonempty(answer: str | None, form: AnswerForm) -> ExtractedAnswer | None:
    answer = (answer or "").strip().strip("*`").strip()
    return ExtractedAnswer(answer, form) if answer else None


def _own_words(text: str, prompt: str) -> str | None:
    """What the policy says as its answer: after its reasoning, before it runs on, without an echo of the prompt."""
    prompt = prompt.strip()
    if prompt and text.lstrip().startswith(prompt):
        text = text.lstrip()[len(prompt) :]
    elif len(prompt) >= 20:
        text = text.replace(prompt, " ")
    if "<" not in text and "◁" not in text:
        return text
    ends = list(REASONING_END.finditer(text))
    if ends:
        text = text[ends[-1].end() :]
    elif REASONING_START.search(text):
        return None
    while (token := TURN_TOKEN.search(text)) and not text[: token.start()].strip():
        text = text[token.end() :].removeprefix("assistant")
    return text if token is None else text[: token.start()]


def _box(text: str, boxes: list[re.Match[str]]) -> str:
    return _without_phrase(last_box(text, boxes) or "")


def _first_problem(text: str) -> str:
    """Text up to where the policy, its answer given, runs on with a problem of its own."""
    following = NEXT_PROBLEM.search(text, 1)
    if following is None:
        return text
    before = text[: following.start()]
    marked = BOX.search(before) or HASH.search(before) or TAG.search(before) or _after_answer_phrase(before)
    return before if marked else text


def _after_answer_phrase(text: str) -> str | None:
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


def _without_phrase(answer: str) -> str:
    """A marked answer without the "The answer is" that stands inside its mark."""
    if len(answer) < MAX_TAIL and len(ANSWER_WORD.findall(answer)) == 1:
        return _after_answer_phrase(answer) or answer
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


def _whole_or_last(text: str) -> str | None:
    """All of a text that is nothing but an answer, otherwise its last mathematics or number."""
    text = ARROW.sub("", without_asides(text.strip()[-MAX_TAIL:]).strip("* "))
    if filler := FILLER.match(text):
        text = text[filler.end() :]
    one_line = "\n" not in text and len(text) <= 400
    if one_line:
        text = LATER_CLAUSE.split(text)[-1]
    bare = TEXT_COMMAND.sub("", text)
    if one_line and not MATH.search(text) and not PROSE.search(bare) and not WORD_BEFORE_NUMBER.search(bare):
        return text
    if without_delimiters(text) != text:
        return without_delimiters(text)
    return last_claim(text)


def _with_percent(text: str, math: re.Match[str]) -> str:
    return without_delimiters(math[0]) + ("\\%" if PERCENT_AFTER.match(text, math.end()) else "")
