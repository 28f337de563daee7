"""Files in each format, written by hand."""

import json

import pytest


@pytest.fixture
def jsonl(tmp_path):
    """Write rows to a .jsonl file and return its path."""

    def write(rows, name="tasks.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write
