r"""What an answer says that is a sentence: "The number of apples is 5" is 5. Pure strings."""

import re

from trl_hybrid.verifier.latex import TEXT_BODY


# Words up to their link, or an adverb: "The number of apples is 5", "Total: 5", "exactly 5".
DENIES = (
    r"(?:not|no|never|neither|nor|none|cannot|if|unless|than|or|wrong|incorrect|false|impossible)\b|[A-Za-z]*n't\b"
)
LEAD_IN = re.compile(
    rf"(?:(?!(?i:{DENIES}))[A-Za-z][A-Za-z'-]*+[\s,]*+){{1,12}}?(?:(?<=\s)(?:is|are|was|were|has|have|had)(?![A-Za-z])|:)\s*(?=\S)"
    r"|(?i:so|thus|hence|therefore|exactly|precisely|just|simply)[\s,:]+(?=\S)"
)
SUBJECT = re.compile(r"(?<![A-Za-z])([b-zB-Z])\s*(?:is|:)\s*$")


def without_lead_in(text: str) -> str:
    r"""What an answer in a sentence says; any other text unchanged.

    Example:
        >>> without_lead_in(r"\text{There are 5 apples}"), without_lead_in("The value of x is 5")
        ('5 apples', 'x=5')
        >>> without_lead_in(r"\text{Total: } 5"), without_lead_in("It is not 5"), without_lead_in(r"2 \text{ is } 5")
        ('5', 'not 5', '2 \\text{ is } 5')
    """
    plain = TEXT_BODY.sub(r"\1 ", text) if text.startswith(r"\text") else text
    lead = LEAD_IN.match(plain)
    if lead is None:
        return text
    said, subject = plain[lead.end() :].strip(), SUBJECT.search(lead[0])
    return said if subject is None else f"{subject[1]}={said}"
