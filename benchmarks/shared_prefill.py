"""Claim: groups of answers are generated in less time where each prompt is computed once for its group.

Eight prompts are answered eight times each by transformers' `generate`, as it comes and within
`prompts_prefilled_once`, with which the trainer and `trl-hybrid eval` generate. The two take turns in one process;
ratios are medians over turns, their least and most in brackets. All answers have the same length, so that both do the
same work, and are the same tokens, drawn at temperature 1 from the same random numbers: the share that is equal stands
beside.

On a CPU the policy is random weights in SmolLM2-135M's shape with 12 of its 30 layers, in fp32; on a GPU in
TinyLlama's, in bf16.

Examples:
  python benchmarks/shared_prefill.py                       all cases: three minutes on two quiet CPU cores
  python benchmarks/shared_prefill.py --layers 30 --cases short
  python benchmarks/shared_prefill.py --quick               all works: a minute
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from launches.models import ROOT
from reward_model_scoring import describe_machine
from transformers import GenerationConfig
from updates.cases import FIRST_ID, SHAPES
from updates.ways import Setting, make_policy

from trl_hybrid.policy.shared_prefill import prompts_prefilled_once
from trl_hybrid.runs.folder import write_json


RESULTS = ROOT / "benchmarks" / "results" / "shared_prefill.json"
QUICK_RESULTS = ROOT / "runs" / "shared_prefill.json"

CASES = {"short": (53, 16), "gsm8k": (120, 150), "long prompts": (200, 60), "long answers": (40, 200)}
"""Tokens of a prompt and of each answer."""

PROMPTS, GROUP = 8, 8


def make_rows(prompt: int, vocabulary: int, device: str) -> dict[str, torch.Tensor]:
    """Draw prompts of up to a tenth fewer tokens, padded on the left, each as often as its group has answers."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(FIRST_ID, vocabulary, (PROMPTS, prompt), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(PROMPTS):
        mask[row, : row * prompt // (10 * PROMPTS)] = 0
    rows = {"input_ids": ids * mask, "attention_mask": mask}
    return {name: tensor.repeat_interleave(GROUP, dim=0).to(device) for name, tensor in rows.items()}


def timed(policy: Any, rows: dict[str, torch.Tensor], answer: int, context: Callable[[Any], Any]) -> tuple[float, Any]:
    """Generate once; return the seconds, and the tokens of the answers."""
    config = GenerationConfig(
        do_sample=True, top_k=0, max_new_tokens=answer, min_new_tokens=answer, pad_token_id=0, eos_token_id=2
    )
    torch.manual_seed(0)
    started = time.perf_counter()
    with context(policy), torch.no_grad():
        out = policy.generate(**rows, generation_config=config, disable_compile=True)
    tokens = out[:, rows["input_ids"].shape[1] :].cpu()
    return time.perf_counter() - started, tokens


def measure(policy: Any, prompt: int, answer: int, repeats: int) -> dict[str, Any]:
    """Let the two ways take turns."""
    rows = make_rows(prompt, policy.config.vocab_size, policy.device.type)
    ways: dict[str, Callable[[Any], Any]] = {"transformers": lambda _: nullcontext(), "shared": prompts_prefilled_once}
    for context in ways.values():  # the first of each is slower
        timed(policy, rows, 2, context)
    turns = [{name: timed(policy, rows, answer, context) for name, context in ways.items()} for _ in range(repeats)]
    ratios = [turn["transformers"][0] / turn["shared"][0] for turn in turns]
    plain, shared = (turns[0][name][1] for name in ways)
    return {
        "prompt": prompt,
        "answer": answer,
        "seconds": {name: round(statistics.median(turn[name][0] for turn in turns), 3) for name in ways},
        "times": [round(value, 2) for value in (statistics.median(ratios), min(ratios), max(ratios))],
        "equal_tokens": round((plain == shared).double().mean().item(), 5),
    }


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repeats", type=int, default=3, help="turns (default: %(default)s)")
    parser.add_argument("--shape", choices=SHAPES, default="tinyllama" if on_gpu else "smollm2-135m")
    parser.add_argument(
        "--layers", type=int, default=None if on_gpu else 12, help="of the shape's (default: 12 on a CPU)"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="on a CPU (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file of the figures")
    parser.add_argument(
        "--quick", action="store_true", help="two layers, one turn, answers of four tokens; kept apart"
    )
    return parser.parse_args()


def main() -> None:
    """Measure, print and write."""
    arguments = read_arguments()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(arguments.threads)
    layers, repeats = (2, 1) if arguments.quick else (arguments.layers, arguments.repeats)
    policy = make_policy(
        Setting(arguments.shape, layers, False, device, bf16=device == "cuda", threads=1, checkpointing=False)
    ).eval()
    report: dict[str, Any] = {
        "machine": describe_machine(device, arguments.threads),
        "shape": arguments.shape,
        "layers": layers,
        "cases": {},
    }
    report |= {"prompts": PROMPTS, "answers_each": GROUP, "repeats": repeats}
    for name in arguments.cases:
        prompt, answer = CASES[name]
        found = measure(policy, prompt, 4 if arguments.quick else answer, repeats)
        report["cases"][name] = found
        seconds, (times, least, most) = found["seconds"], found["times"]
        print(
            f"{name}, {prompt} + {found['answer']}: transformers {seconds['transformers']:.2f} s, shared "
            f"{seconds['shared']:.2f} s, {times} times ({least}-{most}); equal tokens {found['equal_tokens']:.3%}"
        )
        write_json(arguments.output or (QUICK_RESULTS if arguments.quick else RESULTS), report)


if __name__ == "__main__":
    main()
