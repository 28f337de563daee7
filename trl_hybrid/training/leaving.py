"""How a process leaves a run that it shared with others."""

import time
from typing import Any

from accelerate import PartialState


def leave_together(trainer: Any = None) -> None:
    """End the process group when no process talks to another any more; the last thing that a script shares.

    A process that leaves while another one still talks to it takes that one down. And gloo's threads free the tensors
    of the last collective a moment after it is over, for which they need Python: one that comes too late, when Python
    is ending, aborts the process with "terminate called without an active exception" (pytorch#190489). DeepSpeed keeps
    the group, so that destroying it does not wait for them.

    Args:
        trainer: TRL's, whose vLLM engine ends before the group does, and gives its memory back.
    """
    state = PartialState()
    state.wait_for_everyone()
    shared = state.num_processes > 1
    _end_engine(trainer)
    state.destroy_process_group()
    if shared:
        time.sleep(0.2)  # hundreds of times what the threads need


def _end_engine(trainer: Any) -> None:
    """End an engine in this process: when Python ends it would look for the groups that it made in the process group.

    What it ends with destroys the process group too.
    """
    generation = getattr(trainer, "vllm_generation", None)
    if generation is not None and generation.mode == "colocate":
        generation.llm.llm_engine.engine_core.shutdown()
        del generation.llm
