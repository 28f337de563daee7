r"""Layout that is no prose: programs in code fences and the markers of enumerations. Pure strings."""

import re


FENCE = re.compile(r"```(?:[ \t]*([A-Za-z][\w+#-]*)[ \t]*\n)?(.*?)(?:```|\Z)", re.DOTALL)
LANGUAGE = re.compile(
    r"py(?:thon3?)?|sympy|c|cpp|c\+\+|c#|csharp|java|javascript|js|typescript|ts|r|ruby|go|rust|matlab|octave|sql|bash|sh"
    r"|shell|php|kotlin|swift|julia|mathematica|wolfram|haskell|scala|perl|lua",
    re.IGNORECASE,
)
PROGRAM = re.compile(
    r"^\s*(?:def|class|import|from|for|while|return|#include|let|const|var|function)\b"
    r"|\b(?:print(?:f|ln)?|console\.log|len|range|int|float)\s*\(|\b(?:std::)?cout\b",
    re.MULTILINE,
)
MARKER = re.compile(r"(?:^|(?<=\s))[(*_]{0,3}(\d{1,2})[.)][*_]{0,2}\s+(?=[*_\"'(]{0,3}[A-Z\\$])", re.MULTILINE)
OPENS_A_LIST = re.compile(r"(?:^|[\n:.;!?])[\s*_-]*$")


def without_programs(text: str) -> str:
    r"""A text without the programs in code fences: their numbers say nothing, only the prose and output behind them.

    Example:
        >>> without_programs("```python\nx = 3 + 4\nprint(x)\n```\nSo 7."), without_programs("```\n42\n```")
        ('\n\nSo 7.', '\n42\n')
    """
    if "```" not in text:
        return text
    return FENCE.sub(lambda fence: "\n" if _is_program(fence[1], fence[2]) else fence[2], text)


def _is_program(language: str | None, body: str) -> bool:
    return LANGUAGE.fullmatch(language or "") is not None or PROGRAM.search(body) is not None


def without_list_markers(text: str) -> str:
    r"""A text without the numbers of its enumerations: those that count on, one by one.

    Example:
        >>> without_list_markers("Key points: 1. Add 2. Divide by 4"), without_list_markers("She has 2. He has 3.")
        ('Key points: \nAdd \nDivide by 4', 'She has 2. He has 3.')
    """
    runs: list[list[re.Match[str]]] = []
    for marker in MARKER.finditer(text):
        follows = next((run for run in reversed(runs) if int(marker[1]) == int(run[-1][1]) + 1), None)
        if follows is not None:
            follows.append(marker)
        elif OPENS_A_LIST.search(text, max(0, marker.start() - 12), marker.start()):
            runs.append([marker])
    for marker in sorted((m for run in runs if len(run) > 1 for m in run), key=lambda m: m.start(), reverse=True):
        text = f"{text[: marker.start()]}\n{text[marker.end() :]}"
    return text
