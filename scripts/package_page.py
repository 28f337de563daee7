"""What turns the README, as GitHub shows it, into the package's page: a hook of hatchling, named in `pyproject.toml`.

The page lies elsewhere than the files that the README links to, so that each link needs a whole address: that of
the repository, which `[project.urls]` holds, at the tag of the release.
"""

import re

from hatchling.metadata.plugin.interface import MetadataHookInterface


HERE = r"\((?!https?:|#)([^()\s]+)\)"
PICTURE = re.compile(rf"(!\[[^\[\]]*\]){HERE}")
LINK = re.compile(rf"\]{HERE}")


class PackagePage(MetadataHookInterface):
    """Gives the package its readme."""

    def update(self, metadata: dict) -> None:
        """Add `readme` to the table `project` of `pyproject.toml`."""
        with open(f"{self.root}/README.md", encoding="utf-8") as readme:
            text = absolute(readme.read(), metadata["urls"]["Repository"], f"v{metadata['version']}")
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def absolute(text: str, repository: str, tag: str) -> str:
    """Give each link and picture of a page the whole address of its file.

    >>> absolute("![Curves](docs/a.png), [speed](docs/speed.md#how), [TRL](https://a.org)", "https://b.org/c", "v2")
    '![Curves](https://b.org/c/raw/v2/docs/a.png), [speed](https://b.org/c/blob/v2/docs/speed.md#how), [TRL](https://a.org)'
    """
    text = PICTURE.sub(rf"\1({repository}/raw/{tag}/\2)", text)
    return LINK.sub(rf"]({repository}/blob/{tag}/\1)", text)
