"""What loading costs is said before, and is not begun where there is no room."""

from types import SimpleNamespace

import psutil
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

from trl_hybrid.checks import models
from trl_hybrid.checks.models import where_from


def test_a_folder_s_size_is_that_of_its_weights(tmp_path):
    (tmp_path / "model-1.safetensors").write_bytes(b"0" * 3_000_000)
    (tmp_path / "model-2.safetensors").write_bytes(b"0" * 1_500_000)
    (tmp_path / "pytorch_model.bin").write_bytes(b"0" * 9_000_000)
    assert where_from(str(tmp_path)) == "4.5 MB in that folder"


@pytest.fixture
def hub(monkeypatch):
    """A Hub that knows the sizes of one model's files."""
    files = [("model-1.safetensors", 9_000_000_000), ("model-2.safetensors", 5_100_000_000), ("extra.bin", 10**12)]
    siblings = [SimpleNamespace(rfilename=name, size=size) for name, size in files]
    asked = []

    def model_info(self, name, **kwargs):
        asked.append(kwargs)
        if name == "no/network":
            raise OfflineModeIsEnabled("offline")
        return SimpleNamespace(siblings=siblings)

    monkeypatch.setattr(models.HfApi, "model_info", model_info)
    return asked


def test_a_download_is_announced_with_the_size_of_its_weights(hub):
    assert where_from("some/model", "v1") == "downloads 14.1 GB"
    assert hub == [{"revision": "v1", "timeout": 5, "files_metadata": True}]


def test_without_a_network_the_size_is_unknown(hub):
    assert where_from("no/network") == "a download of unknown size: the Hub does not say"


def test_what_is_in_the_cache_is_not_downloaded(hub, monkeypatch):
    in_cache = "model.safetensors.index.json"
    monkeypatch.setattr(
        models, "try_to_load_from_cache", lambda name, file, revision: "/cache/x" if file == in_cache else None
    )
    assert where_from("some/model") == "in the cache"
    assert hub == []


def test_a_model_that_does_not_fit_is_not_loaded(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2 * 10**9))
    checks = models.ModelChecks(
        SimpleNamespace(), SimpleNamespace(device=SimpleNamespace(type="cpu")), SimpleNamespace(), [], None, None
    )
    assert checks._shortage("policy", 2 * 10**9, on_gpu=True) is None
    short = checks._shortage("reward model", 28_300_000_000, on_gpu=False)
    assert short.status == "problem"
    assert short.text == "The reward model takes 28.3 GB of memory, 2.0 GB are free"
    assert "embedded" in short.fix
