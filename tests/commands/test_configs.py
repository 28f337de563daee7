"""`trl-hybrid configs` names every shipped configuration, from a checkout and from an installed wheel."""

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from trl_hybrid.cli import main
from trl_hybrid.commands.configs import find_configs, when_to_use
from trl_hybrid.reward_model.zero3 import CONFIG
from trl_hybrid.shipped import shipped_folder


NAMES = ["cpu", "multi_gpu", "single_gpu", "zero2", "zero3", "zero3_offload", "rm_zero3_offload"]

# The keys of TRL's own examples, in their order.
KEYS = [
    *("compute_environment", "debug", "deepspeed_config", "distributed_type", "downcast_bf16", "gpu_ids"),
    *("machine_rank", "main_training_function", "mixed_precision", "num_machines", "num_processes", "rdzv_backend"),
    *("same_network", "tpu_env", "tpu_use_cluster", "tpu_use_sudo", "use_cpu"),
]


def shown(capsys, *args):
    assert main(["configs", *args]) == 0
    return capsys.readouterr().out.splitlines()


def test_every_configuration_has_a_path_and_a_line_that_says_when_to_use_it(capsys):
    lines = shown(capsys)
    paths, uses = [Path(line) for line in lines[::2]], lines[1::2]
    assert [path.stem for path in paths] == NAMES
    assert all(path.is_absolute() and path.is_file() for path in paths)
    assert uses[NAMES.index("zero3")] == "    Several GPUs, a policy too large for one: its weights are shared too."
    assert "--reward_model_placement zero3" in uses[-1]


def test_every_use_is_a_sentence_on_one_line():
    for path in find_configs():
        use = when_to_use(path)
        assert use[0].isupper(), path
        assert use.endswith("."), path
        assert len(use) < 140, path


def test_the_reward_model_s_is_the_one_that_it_is_loaded_with():
    assert find_configs()[-1] == (shipped_folder("accelerate_configs") / CONFIG).resolve()


@pytest.mark.parametrize("name", ["zero2", "zero2.yaml"])
def test_one_name_gives_its_path_alone(capsys, name):
    assert shown(capsys, name) == [str(Path("accelerate_configs/zero2.yaml").resolve())]


def test_unknown_name_is_one_message(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["configs", "zero4"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "no configuration 'zero4'" in error
    assert "zero3_offload" in error


def test_accelerate_knows_every_key_and_all_have_trl_s_order():
    from accelerate.commands.config.config_args import load_config_from_file

    for path in find_configs():
        if path.suffix == ".yaml":
            assert load_config_from_file(str(path)).compute_environment == "LOCAL_MACHINE"
            keys = list(yaml.safe_load(path.read_text()))
            assert keys == [key for key in KEYS if key in keys]
        else:
            assert json.loads(path.read_text())["zero_optimization"]["stage"] == 3


@pytest.mark.slow
def test_installed_wheel_has_them_inside(tmp_path):
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed")
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), "."]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True, timeout=100)
    with zipfile.ZipFile(next(tmp_path.glob("trl_hybrid-*.whl"))) as wheel:
        wheel.extractall(tmp_path / "installed")

    # From the unpacked wheel: in another folder than the checkout's, and before it on the path.
    installed = tmp_path / "installed"
    program = "import sys; from trl_hybrid.cli import main; sys.exit(main(['configs']))"
    lines = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)},
    ).stdout.splitlines()  # fmt: skip
    folder = installed.resolve() / "trl_hybrid" / "shipped" / "accelerate_configs"
    assert [Path(line).stem for line in lines[::2]] == NAMES
    assert all(Path(line).is_relative_to(folder) and Path(line).is_file() for line in lines[::2])
