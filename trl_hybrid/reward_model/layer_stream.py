"""Layers in pinned host memory that take turns in a few places on the device."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from trl_hybrid.errors import InputError
from trl_hybrid.reward_model.footprint import LAYER_SLOTS


ALIGNMENT = 64
"""Elements to which each tensor in a slab is aligned, for the matrix kernels' sake."""


class LayerStream:
    """Layers in pinned host memory, and room for a few of them on the device.

    The order in which layers are used is a ring, so that at the end of one pass the first layers are already on their
    way for the next.

    Args:
        layers: Layers of equal shape on the CPU. Their weights are moved into slabs, one for each layer.
        device: Where they are computed. On the CPU copies are plain and nothing is pinned.
        slots: Layers with room on the device.

    Raises:
        InputError: The machine has no room to pin the weights.
    """

    def __init__(self, layers: Sequence[nn.Module], device: torch.device, slots: int = LAYER_SLOTS) -> None:
        self.device = device
        on_gpu = device.type == "cuda"
        self.slabs = [_into_slab(layer, pinned=on_gpu) for layer in layers]
        self.slots = [torch.empty_like(self.slabs[0], device=device) for _ in range(min(slots, len(layers)))]
        self.views = [dict(_views(layers[0], slot)) for slot in self.slots]
        self.copies = torch.cuda.Stream(device) if on_gpu else None
        if self.copies is not None:
            for slot in self.slots:  # let go while a copy into it is on its way, it must not be used for anything else
                slot.record_stream(self.copies)
        self.ready = [torch.cuda.Event() for _ in self.slots] if on_gpu else []
        self.free = [torch.cuda.Event() for _ in self.slots] if on_gpu else []
        self.restart()

    def restart(self) -> None:
        """Begin with the first layer again, as after a pass that was broken off."""
        if self.copies is not None:
            torch.cuda.synchronize(self.device)  # what the broken pass still computes reads the slots
        self.used = 0
        for ahead in range(len(self.slots)):
            self._fetch(ahead)

    @contextmanager
    def next_layer(self) -> Iterator[dict[str, torch.Tensor]]:
        """Give the next layer's weights by name, on the device, as long as the context lasts."""
        slot = self.used % len(self.slots)
        if self.copies is not None:
            # The stream waits, not this thread, which goes on to queue the next layers.
            torch.cuda.current_stream(self.device).wait_event(self.ready[slot])
        # No `finally`: after an error the ring is out of step, and `restart` begins anew.
        yield self.views[slot]
        if self.copies is not None:
            self.free[slot].record(torch.cuda.current_stream(self.device))
        self.used += 1
        # The slot that has just become free gets the layer that comes after those on their way.
        self._fetch(self.used + len(self.slots) - 1)

    def _fetch(self, use: int) -> None:
        """Copy the layer of the given use into its slot, once the slot's last computation is over."""
        slot = use % len(self.slots)
        with torch.cuda.stream(self.copies):  # does nothing without a stream
            if self.copies is not None:
                self.copies.wait_event(self.free[slot])
            self.slots[slot].copy_(self.slabs[use % len(self.slabs)], non_blocking=True)
            if self.copies is not None:
                self.ready[slot].record(self.copies)


def _into_slab(layer: nn.Module, pinned: bool) -> torch.Tensor:
    """Move a layer's weights into one flat tensor, which frees the ones that they were in."""
    first = next(layer.parameters())
    size = sum(-(-parameter.numel() // ALIGNMENT) * ALIGNMENT for parameter in layer.parameters())
    try:
        slab = torch.empty(size, dtype=first.dtype, pin_memory=pinned)
    except RuntimeError as error:  # not torch's own for memory: the CUDA driver refuses
        raise InputError(
            "A streamed reward model keeps its weights in pinned host memory, but the next "
            f"{size * first.dtype.itemsize / 1e9:.2f} GB for a layer could not be had. Free the machine's memory, "
            "raise the container's limit, or place the reward model `zero3`, which shares one copy between "
            f"processes, or `resident`. The cause: {str(error).splitlines()[0]}"
        ) from error
    for name, view in _views(layer, slab):
        parameter = layer.get_parameter(name)
        view.copy_(parameter)
        parameter.data = view  # else the weights would be there twice
    return slab


def _views(layer: nn.Module, slab: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield where each of the layer's weights lies in a slab."""
    begin = 0
    for name, parameter in layer.named_parameters():
        yield name, slab[begin : begin + parameter.numel()].view(parameter.shape)
        begin += -(-parameter.numel() // ALIGNMENT) * ALIGNMENT
