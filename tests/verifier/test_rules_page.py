"""Every example of docs/verifier.md is judged as the page says."""

import re
from pathlib import Path

import pytest


PAGE = Path(__file__).parents[2] / "docs/verifier.md"
CODE = re.compile(r"(?<!`)(`+) ?(.+?) ?\1(?!`)")
SECTIONS = {"Which answer counts": "{}", "When it is right": r"So \boxed{{{}}}."}


def examples(section, form):
    """(rule, gold, completion, expected) of the section's table: gold, right and wrong are spans of code."""
    text = PAGE.read_text(encoding="utf-8").split(f"## {section}\n")[1].split("\n## ")[0]
    for line in text.splitlines():
        cells = line.strip("|").split(" | ")
        if len(cells) == 4 and "`" in cells[1]:
            gold, right, wrong = ([span for _, span in CODE.findall(cell)] for cell in cells[1:])
            yield from ((cells[0], gold[0], form.format(said), True) for said in right)
            yield from ((cells[0], gold[0], form.format(said), False) for said in wrong)


@pytest.mark.parametrize("section", SECTIONS)
def test_the_page_says_what_the_verifier_does(verifier, section):
    rows = list(examples(section, SECTIONS[section]))
    assert len(rows) > 35
    found = verifier.verify_batch([row[2] for row in rows], [row[1] for row in rows])
    untrue = [
        (*row, verdict.parsed_answer, verdict.reason)
        for row, verdict in zip(rows, found, strict=True)
        if verdict.correct is not row[3]
    ]
    assert untrue == []
