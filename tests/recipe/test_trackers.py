"""Every tracker of docs/options.md gets the hybrid figures, without network: W&B offline, trackio, TensorBoard."""

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest


TRACKERS = ("tensorboard", "trackio", "wandb")
MISSING = [name for name in TRACKERS if importlib.util.find_spec(name) is None]
REQUIRED = os.environ.get("TRL_HYBRID_REQUIRE_ALL") == "1"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(MISSING) and not REQUIRED, reason=f"not installed: {', '.join(MISSING)}"),
]

FIGURES = ("hybrid/pass_rate", "hybrid/auc", "hybrid/mixed_groups", "rewards/hybrid_reward/mean", "time/judging")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of two steps that reports to all of them."""
    folder = tmp_path_factory.mktemp("tracked")
    (folder / "trackio").mkdir()
    config = folder / "config.yaml"
    embedded = Path("recipes/configs/embedded.yaml").read_text()
    config.write_text(f"{embedded}\nreport_to: [{', '.join(TRACKERS)}]\n")
    command = [
        sys.executable, "recipes/tinyllama_grpo.py", "--config", str(config), "--max_steps", "2",
        "--save_steps", "100", "--max_test_rows", "0", "--output_dir", str(folder / "run"),
    ]  # fmt: skip
    environment = {"WANDB_MODE": "offline", "WANDB_DIR": str(folder), "TRACKIO_DIR": str(folder / "trackio")}
    result = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def logged(folder):
    """The rows of the run's own history, which the trackers' are compared with."""
    rows = [json.loads(line) for line in (folder / "run" / "history.jsonl").read_text().splitlines()]
    return [row for row in rows if "hybrid/pass_rate" in row]


def values(rows, name):
    return [row[f"train/{name}"] for row in rows if f"train/{name}" in row]


@pytest.mark.parametrize("name", FIGURES)
def test_wandb_offline_has_the_figures(folder, logged, name):
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    assert values(wandb_rows(file), name) == pytest.approx([row[name] for row in logged])


@pytest.mark.parametrize("name", FIGURES)
def test_trackio_has_the_figures(folder, logged, name):
    (file,) = folder.glob("trackio/*.db")
    with sqlite3.connect(file) as database:
        rows = [json.loads(text) for (text,) in database.execute("SELECT metrics FROM metrics ORDER BY id")]
    database.close()
    assert values(rows, name) == pytest.approx([row[name] for row in logged])


@pytest.mark.parametrize("name", FIGURES)
def test_tensorboard_has_the_figures(folder, logged, name):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = folder.glob("run/runs/*")
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    assert [event.value for event in accumulator.Scalars(f"train/{name}")] == pytest.approx(
        [row[name] for row in logged], rel=1e-5
    )


def wandb_rows(file):
    """The rows of a run's history in W&B's file: protocol buffers in LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    rows = []
    for content in leveldb_records(file.read_bytes()):
        record = Record()
        record.ParseFromString(content)
        if record.HasField("history"):
            items = record.history.item
            rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows


def leveldb_records(data, header=7, block=32768):
    """Records in blocks of 32 KB: checksum (4 bytes), length (2), kind (1 whole, 2 to 4 first, middle, last part)."""
    record, at = b"", header  # W&B's own mark comes first
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record = (b"" if kind in (1, 2) else record) + data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield record
