"""Memory of training that DeepSpeed shares out, against arithmetic by hand; and where the sharing is read."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from accelerate import DeepSpeedPlugin
from hypothesis import given
from hypothesis import strategies as st
from known_shapes import TINYLLAMA
from peft import LoraConfig

from trl_hybrid.errors import InputError
from trl_hybrid.memory.estimates import Launch, launched_sharing, read_launch
from trl_hybrid.memory.training import Workload, activation_bytes, describe_policy, estimate_training, generation_bytes
from trl_hybrid.memory.zero import Sharing, estimate_shared_training


PARAMETERS, ADAPTERS = 1_100_048_384, 25_231_360  # tests/memory/test_training.py
OWN = PARAMETERS // 4
assert 4 * OWN == PARAMETERS

WORK = Workload(rows=8, generated_rows=64, prompt_tokens=128, completion_tokens=384, processes=4)


@pytest.fixture(scope="module")
def whole():
    return describe_policy(TINYLLAMA, torch.bfloat16)


@pytest.fixture(scope="module")
def full_precision():
    """Loaded in fp32, as full fine-tuning wants it; DeepSpeed casts it to bf16."""
    return describe_policy(TINYLLAMA, torch.float32)


def test_zero2_shares_optimizer_and_gradients(full_precision, whole):
    parts = estimate_shared_training(full_precision, WORK, Sharing(2))
    assert parts.weights == 2 * PARAMETERS
    # Of its quarter: a copy and two moments in fp32, gradients in bf16.
    assert parts.optimizer == 12 * OWN == 3_300_145_152
    assert parts.gradients == 2 * OWN == 550_024_192
    # A bucket of 5e8 gradients in bf16 comes on top of a bf16 model's activations, and goes again.
    assert parts.activations == activation_bytes(whole, WORK) + 10**9
    assert parts.generation == generation_bytes(whole, WORK)
    assert parts.host == parts.reference == 0


def test_zero1_shares_the_optimizer_alone(full_precision):
    parts = estimate_shared_training(full_precision, WORK, Sharing(1))
    assert (parts.optimizer, parts.gradients) == (12 * OWN, 2 * PARAMETERS)
    alone = estimate_shared_training(full_precision, WORK, Sharing(0))
    assert (alone.optimizer, alone.gradients) == (12 * PARAMETERS, 2 * PARAMETERS)


def test_zero3_shares_the_weights_and_gathers_them_in_turn(full_precision, whole):
    parts = estimate_shared_training(full_precision, replace(WORK, beta=0.01), Sharing(3))
    assert parts.weights == parts.reference == 2 * OWN
    assert parts.optimizer == 12 * OWN
    assert parts.gradients == 2 * OWN + 10**9  # the bucket stays
    # At most 1e9 of the 1.1e9 weights are gathered in a pass, all of them to generate.
    assert parts.activations == activation_bytes(whole, WORK) + 2 * 10**9
    assert parts.generation == generation_bytes(whole, WORK) + 2 * PARAMETERS


def test_what_is_offloaded_lies_in_host_memory(full_precision):
    parts = estimate_shared_training(full_precision, WORK, Sharing(3, offload_optimizer=True, offload_weights=True))
    assert (parts.weights, parts.optimizer, parts.gradients) == (0, 0, 10**9)
    # Copies and gradients in fp32, 1,100,048,384 bytes each -> 2^31; a buffer and the weights in bf16, 550,024,192
    # bytes each -> 2^30; two moments in fp32, not pinned.
    assert parts.host == 2 * 2**31 + 2 * 2**30 + 8 * OWN
    optimizer_alone = estimate_shared_training(full_precision, WORK, Sharing(2, offload_optimizer=True))
    assert optimizer_alone.host == 2 * 2**31 + 2**30 + 8 * OWN
    assert (optimizer_alone.weights, optimizer_alone.gradients) == (2 * PARAMETERS, 0)


def test_adapters_alone_are_shared(whole):
    lora = LoraConfig(r=32, target_modules="all-linear", task_type="CAUSAL_LM")
    parts = estimate_shared_training(describe_policy(TINYLLAMA, torch.bfloat16, lora), WORK, Sharing(2))
    # Adapters are bf16 there.
    assert parts.weights == 2 * (PARAMETERS + ADAPTERS)
    assert (parts.optimizer, parts.gradients) == (12 * ADAPTERS // 4, 2 * ADAPTERS // 4)
    # An optimizer of one byte a moment keeps its fp32 copies.
    small = estimate_shared_training(whole, replace(WORK, optim="adamw_8bit"), Sharing(2))
    assert small.optimizer == (4 + 2) * OWN


def test_the_optimizer_s_step_counts_where_the_backward_is_small(full_precision):
    tiny = Workload(rows=1, generated_rows=0, prompt_tokens=8, completion_tokens=8)
    # All gradients once more in fp32.
    assert estimate_shared_training(full_precision, tiny, Sharing(2)).activations == 4 * PARAMETERS


def test_the_step_of_an_offloaded_optimizer_takes_nothing_on_the_gpu(full_precision, whole):
    tiny = Workload(rows=1, generated_rows=0, prompt_tokens=8, completion_tokens=8)
    parts = estimate_shared_training(full_precision, tiny, Sharing(2, offload_optimizer=True))
    assert parts.activations == activation_bytes(whole, tiny) + 10**9


def test_zero3_with_weights_on_the_gpu_and_generation_elsewhere(full_precision):
    work = replace(WORK, generated_rows=0, beta=0.01, processes=3)
    parts = estimate_shared_training(full_precision, work, Sharing(3, offload_optimizer=True))
    assert parts.generation == 0
    assert parts.weights == parts.reference == 733_365_590  # a third of 2,200,096,768, rounded up
    # Of 366,682,795 weights: 1,466,731,180 bytes twice -> 2^31, 733,365,590 -> 2^30, and the moments.
    assert parts.host == 2 * 2**31 + 2**30 + 8 * 366_682_795


def test_deepspeed_s_settings_may_be_incomplete():
    assert Sharing.from_settings({}) == Sharing.from_settings({"zero_optimization": {}}) == Sharing(0)
    weights = {"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}}
    assert Sharing.from_settings(weights) == Sharing(3, offload_weights=True)


@given(st.integers(1, 63), st.integers(0, 3))
def test_more_processes_never_take_more(full_precision, processes, stage):
    def total(number):
        return estimate_shared_training(full_precision, replace(WORK, processes=number), Sharing(stage)).need.total

    assert total(processes + 1) <= total(processes)


def test_sharing_takes_less_than_each_gpu_by_itself(full_precision):
    alone = estimate_training(full_precision, WORK).need.total
    assert estimate_shared_training(full_precision, WORK, Sharing(2)).need.total < alone


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("single_gpu", Launch(1)),
        ("multi_gpu", Launch(8)),
        ("zero2", Launch(8, Sharing(2))),
        ("zero3", Launch(8, Sharing(3))),
        ("zero3_offload", Launch(8, Sharing(3, offload_optimizer=True, offload_weights=True))),
    ],
)
def test_the_shipped_launch_configurations_are_read(name, expected):
    assert read_launch(f"accelerate_configs/{name}.yaml") == expected


def test_a_launch_configuration_may_name_a_file_of_deepspeed_s(tmp_path):
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 1, "offload_optimizer": {"device": "cpu"}}}')
    named = f"deepspeed_config: {{deepspeed_config_file: {tmp_path}/ds.json}}"
    (tmp_path / "launch.yaml").write_text(f"distributed_type: DEEPSPEED\nnum_processes: 2\n{named}")
    assert read_launch(str(tmp_path / "launch.yaml")) == Launch(2, Sharing(1, offload_optimizer=True))


@pytest.mark.parametrize("text", [None, "- a list", "distributed_type: DEEPSPEED", "a: [", "num_processes: many"])
def test_a_launch_configuration_that_is_none_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "launch.yaml").write_text(text)
    with pytest.raises(InputError, match=r"A launch configuration is a YAML file .*accelerate_configs/"):
        read_launch(str(tmp_path / "launch.yaml"))


def test_in_a_run_the_sharing_is_what_accelerate_hands_to_deepspeed(monkeypatch):
    pytest.importorskip("deepspeed")
    for variable in ("ACCELERATE_DEEPSPEED_ZERO_STAGE", "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE"):
        monkeypatch.delenv(variable, raising=False)
    plugin = DeepSpeedPlugin(zero_stage=2, offload_optimizer_device="cpu", offload_param_device="none")
    assert Sharing.from_settings(plugin.deepspeed_config) == Sharing(2, offload_optimizer=True)
    assert launched_sharing(SimpleNamespace(deepspeed_plugin=plugin)) == Sharing(2, offload_optimizer=True)
    assert launched_sharing(SimpleNamespace(deepspeed_plugin=None)) is None
