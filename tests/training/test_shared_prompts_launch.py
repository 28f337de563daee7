"""An optimizer step with shared prompts is TRL's on two processes, whole, under ZeRO-2 and under ZeRO-3."""

import json

import pytest
import torch
from safetensors.torch import load_file
from two_processes import DATA_PARALLEL, launch


ZERO = {"stage3_gather_16bit_weights_on_model_save": True}
DEEPSPEED = {
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "zero_allow_untested_optimizer": True,
}


def step(folder, stage, way):
    """Start two processes that take one step, and return how far the weights went."""
    folder.mkdir()
    settings = dict(DATA_PARALLEL)
    if stage:
        config = folder / "deepspeed.json"
        config.write_text(json.dumps(DEEPSPEED | {"zero_optimization": ZERO | {"stage": stage}}))
        settings |= {"distributed_type": "DEEPSPEED", "deepspeed_config": {"deepspeed_config_file": str(config)}}
        del settings["mixed_precision"]  # the file's
    launch(folder, settings, "tests/launch/shared_prompts.py", folder, way)
    after, before = load_file(folder / "model.safetensors"), load_file("data/embedded_policy/model.safetensors")
    return torch.cat([(after[name].double() - before[name].double()).flatten() for name in sorted(before)])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", [0, 2, 3], ids=["whole", "ZeRO-2", "ZeRO-3"])
def test_two_processes_take_trls_step(tmp_path, stage):
    if stage:
        pytest.importorskip("deepspeed")
    shared, plain = (step(tmp_path / way, stage, way) for way in ("shared", "plain"))
    assert plain.norm() > 0
    assert (shared - plain).norm() / plain.norm() < 1e-5
