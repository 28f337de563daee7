"""What turns the pages, as GitHub shows them, into the site of `make docs`: hooks of mkdocs and of griffe.

`mkdocs.yml` names this file twice. It is imported in .venv-docs, without trl_hybrid and what that needs.
"""

import ast
import re
from pathlib import Path
from typing import Any

import griffe  # pyright: ignore[reportMissingImports]
from mkdocs.config.defaults import MkDocsConfig  # pyright: ignore[reportMissingImports]
from mkdocs.structure.files import File, Files  # pyright: ignore[reportMissingImports]


ROOT = Path(__file__).resolve().parent.parent
PICTURES = "benchmarks/results"
# Links of the README to files that are no pages.
ELSEWHERE = re.compile(r"(?<!!)\[([^\]]+)\]\((?!docs/|http|#)[^)]+\)")
# TRL's style: [`Name`], and [`~package.Name`] where only the last part is to be read.
REFERENCE = re.compile(r"\[`(~?)([\w.]+)`\](?![\[(])")
DOCTEST = re.compile(r"^>>> .+(?:\n.+)*", re.M)
# What the field of a dataclass says of itself on the command line.
FIELD_HELP = re.compile(r"metadata=\{'help': ((?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\s)+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README as the first page, and the pictures that benchmarks have drawn."""
    home = ELSEWHERE.sub(r"\1", (ROOT / "README.md").read_text()).replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=home))
    for picture in sorted((ROOT / PICTURES).rglob("*.png")):
        files.append(File.generated(config, str(picture.relative_to(ROOT)), abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point links that lead out of `docs/` to where the site has their files."""
    return markdown.replace("](../benchmarks/", "](benchmarks/").replace("](../README.md", "](index.md")


class References(griffe.Extension):
    """In docstrings, names become links where the page has them and code elsewhere, and doctests become blocks.

    A field's docstring is its help.
    """

    def __init__(self) -> None:
        self.public: set[str] = set()

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrite every docstring once the whole package is read."""
        self.public = {str(name) for name in pkg.exports or ()}
        self._rewrite(pkg)

    def _rewrite(self, part: griffe.Object) -> None:
        if part.is_attribute and (field_help := FIELD_HELP.search(str(part.value))):
            part.docstring = griffe.Docstring(ast.literal_eval(f"({field_help[1]})").replace("%%", "%"), parent=part)
        if part.docstring:
            text = DOCTEST.sub("```pycon\n\\g<0>\n```", part.docstring.value)
            part.docstring.value = REFERENCE.sub(self._link, text)
        for member in part.members.values():
            if not member.is_alias:
                self._rewrite(member)

    def _link(self, reference: re.Match[str]) -> str:
        short, path = reference.groups()
        name = path.rpartition(".")[2]
        return f"[`{name}`][trl_hybrid.{name}]" if name in self.public else f"`{name if short else path}`"
