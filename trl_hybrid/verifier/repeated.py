r"""Whether an expression stands in the problem, whatever the spaces, brackets and notation that either writes."""

import re
from functools import lru_cache

from trl_hybrid.verifier.cleaning import clean


# In this order; each is one rule. What is neutral, as in (x+1)^2 \cdot 1, is left out.
SPELLINGS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}|\\[dtc]?frac\s*(\d)\s*(\d)", r"\1\3/\2\4"),
        (r"\\(?:times|cdot)(?![a-zA-Z])|[×·⋅]", "*"),
        (r"\\div(?![a-zA-Z])|÷", "/"),
        (r"\*\*", "^"),
        (r"√", r"\\sqrt "),
        (r"[−–]", "-"),
        (r"(?:\^\s*\{?\s*)?\\circ(?![a-zA-Z])|°|(?<=\d) degrees?\b", ""),
        (r"\b[sS]quare root of\s", r"\\sqrt "),
        (r"\b[cC]ube root of\s", r"\\sqrt[3]"),
        (r"\ssquared\b", "^2"),
        (r"\scubed\b", "^3"),
        (r"\sfactorial\b", "!"),
        (r"\sto the power of\s", "^"),
        (r"\\(?:left|right|displaystyle|[dt]?text|mathrm)(?![a-zA-Z])|\\[,;:!()\[\] ]|[\s{}$\\]", ""),
        (r"\((\d+(?:\.\d+)?)\)", r"\1"),
        (r"(?:[-+]0|[*/^]1)(?![\d.^*/])|(?<![\d.^])(?:0\+|1\*)", ""),
    )
)
COMPOSED = re.compile(
    r"(?<=.)[-+*/^!|]|\)\(|\d[a-zA-Z(]|matrixbegin|sqrt|binom|log|ln|exp|sin|cos|tan|cot|sec|csc|gcd|lcm|max|min|int|sum"
)


@lru_cache(maxsize=256)
def squeezed(text: str) -> str:
    r"""A text without what does not matter to the mathematics that stands in it.

    Example:
        >>> squeezed(r"Find $\left(\dfrac{1}{2}\right)^{10} \cdot 3$."), squeezed("the square root of 36")
        ('Find(1/2)^10*3.', 'thesqrt36')
    """
    text = clean(text)
    for pattern, replacement in SPELLINGS:
        text = pattern.sub(replacement, text)
    return text


def is_composed(text: str) -> bool:
    """Whether a squeezed text holds an operator or a function: whether it can be worked out.

    Example:
        >>> is_composed("x^2-4"), is_composed("2x"), is_composed("-3"), is_composed("x<3")
        (True, True, False, False)
    """
    return COMPOSED.search(text) is not None


def stands_in(text: str, prompt: str) -> bool:
    """Whether a squeezed text is a part of a squeezed prompt, with or without the brackets around it.

    Example:
        >>> stands_in("2^10", "Whatis2^10?"), stands_in("2^1", "Whatis2^10?"), stands_in("2^1", "Whatis12^1?")
        (True, False, False)
    """
    text = text.strip("()+")
    if not text or text not in prompt:
        return False
    return re.search(rf"(?<![\d.]){re.escape(text)}(?!\d|\.\d)", prompt) is not None
