"""Processes leave a run together, and an engine in them before."""

from types import SimpleNamespace

import pytest
from accelerate import PartialState

from trl_hybrid.training.leaving import leave_together


@pytest.mark.parametrize(("mode", "ended"), [("colocate", ["engine", "group"]), ("server", ["group"])])
def test_an_engine_in_this_process_ends_before_the_process_group(monkeypatch, mode, ended):
    told = []
    core = SimpleNamespace(shutdown=lambda: told.append("engine"))
    generation = SimpleNamespace(mode=mode, llm=SimpleNamespace(llm_engine=SimpleNamespace(engine_core=core)))
    monkeypatch.setattr(PartialState, "destroy_process_group", lambda self: told.append("group"))
    leave_together(SimpleNamespace(vllm_generation=generation))
    assert told == ended
    assert hasattr(generation, "llm") == (mode == "server")


def test_a_trainer_without_vllm_leaves_as_before(monkeypatch):
    told = []
    monkeypatch.setattr(PartialState, "destroy_process_group", lambda self: told.append("group"))
    leave_together(SimpleNamespace())
    leave_together()
    assert told == ["group", "group"]
