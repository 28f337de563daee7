"""Run a script whose trainer generates with a vLLM in its process, on a CPU: `vllm_on_cpu.py SCRIPT [ARGUMENT ...]`.

For a CPU vLLM packs the weights that it loads, and cannot take the trainer's in their place; for a GPU it does not.
"""

import runpy
import sys

import torch
from vllm.model_executor.layers import utils


def leave_unpacked(layer, remove_weight):
    """Let a layer compute with its weights as they are."""
    layer.cpu_linear = torch.nn.functional.linear


if __name__ == "__main__":
    utils.dispatch_cpu_unquantized_gemm = leave_unpacked
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
