"""Layers that take turns in a few places on the device; here the device is the CPU, or streams played by rules."""

from contextlib import contextmanager, suppress

import pytest
import torch

from trl_hybrid.errors import InputError
from trl_hybrid.reward_model.layer_stream import ALIGNMENT, LayerStream


class Recorded(torch.nn.Module):
    def __init__(self, value):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((3, 5), float(value)))
        self.bias = torch.nn.Parameter(torch.full((7,), float(-value)))


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 9])
def test_layers_come_round_in_order_whatever_the_number_of_slots(slots):
    layers = [Recorded(value) for value in range(5)]
    stream = LayerStream(layers, torch.device("cpu"), slots)
    for _ in range(3):
        for value in range(5):
            with stream.next_layer() as weights:
                assert weights["weight"].shape == (3, 5)
                assert weights["weight"].eq(value).all()
                assert weights["bias"].eq(-value).all()
    assert [layer.weight[0, 0].item() for layer in layers] == list(range(5))  # in their slabs, unchanged


def test_weights_lie_in_one_aligned_slab_a_layer_and_nowhere_else():
    layers = [Recorded(value) for value in range(2)]
    stream = LayerStream(layers, torch.device("cpu"))
    for layer, slab in zip(layers, stream.slabs, strict=True):
        for weight in layer.parameters():
            assert weight.untyped_storage().data_ptr() == slab.untyped_storage().data_ptr()
            assert weight.storage_offset() % ALIGNMENT == 0


class Simulation:
    """Two streams of a GPU, each of which does its work in order and as early, or as late, as its events allow."""

    def __init__(self, first):
        self.first = first  # the stream that always runs as far as it can before the other one
        self.work = {"copies": [], "compute": []}
        self.current = "compute"
        self.done = {}  # what was recorded of each event
        self.inside = {}  # the layer in each slot
        self.seen = []

    def run(self):
        order = sorted(self.work, key=lambda name: name != self.first)
        while any(self.work.values()):
            # When the eager stream can go on again, the other one has done a single piece.
            name = next(name for name in order if self.work[name] and self._can_begin(self.work[name][0]))
            kind, *what = self.work[name].pop(0)
            if kind == "copy":
                self.inside[what[0]] = what[1]
            elif kind == "record":
                self.done[what[0]] = what[1]
            elif kind == "use":
                self.seen.append((what[1], self.inside.get(what[0])))

    def _can_begin(self, piece):
        return piece[0] != "wait" or self.done.get(piece[1], 0) >= piece[2]


class SimulatedStream:
    def __init__(self, simulation, name):
        self.simulation, self.name = simulation, name

    def wait_event(self, event):
        self.simulation.work[self.name].append(("wait", event, event.records))


class SimulatedEvent:
    records = 0

    def record(self, stream):
        self.records += 1
        stream.simulation.work[stream.name].append(("record", self, self.records))


class SimulatedSlot:
    def __init__(self, simulation):
        self.simulation = simulation

    def copy_(self, layer, non_blocking):
        assert non_blocking
        self.simulation.work[self.simulation.current].append(("copy", self, layer))


@pytest.fixture(params=["copies", "compute"])
def simulation(request, monkeypatch):
    simulated = Simulation(request.param)

    @contextmanager
    def on(stream):
        before, simulated.current = simulated.current, simulated.current if stream is None else stream.name
        yield
        simulated.current = before

    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimulatedStream(simulated, simulated.current))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: simulated.run())
    return simulated


def simulated_layers(simulation, layers=5, slots=3):
    """A LayerStream of numbered layers, as its constructor makes it on a GPU."""
    stream = LayerStream.__new__(LayerStream)
    stream.device = torch.device("cuda")
    stream.slabs = list(range(layers))
    stream.slots = stream.views = [SimulatedSlot(simulation) for _ in range(slots)]
    stream.copies = SimulatedStream(simulation, "copies")
    stream.ready = [SimulatedEvent() for _ in range(slots)]
    stream.free = [SimulatedEvent() for _ in range(slots)]
    stream.restart()
    return stream


def use_layers(simulation, stream, layers):
    for layer in layers:
        with stream.next_layer() as slot:
            simulation.work["compute"].append(("use", slot, layer))


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_no_layer_is_used_before_its_copy_nor_overwritten_before_its_use(simulation, slots):
    use_layers(simulation, simulated_layers(simulation, slots=slots), [*range(5)] * 3)
    simulation.run()
    assert simulation.seen == [(layer, layer) for layer in [*range(5)] * 3]


def test_a_new_start_waits_for_what_the_broken_pass_still_computes(simulation):
    stream = simulated_layers(simulation)
    use_layers(simulation, stream, [0, 1, 2])
    with suppress(KeyboardInterrupt), stream.next_layer() as slot:
        simulation.work["compute"].append(("use", slot, 3))
        raise KeyboardInterrupt
    stream.restart()
    use_layers(simulation, stream, range(5))
    simulation.run()
    assert simulation.seen == [(layer, layer) for layer in [0, 1, 2, 3, *range(5)]]


def test_copies_run_beside_the_computation(simulation):
    use_layers(simulation, simulated_layers(simulation), range(5))
    assert {piece[0] for piece in simulation.work["compute"]} == {"wait", "use", "record"}


def test_memory_that_cannot_be_pinned_is_told_with_what_can_be_done(monkeypatch):
    empty = torch.empty

    def unpinned(*args, pin_memory=False, **kwargs):
        if pin_memory:
            raise RuntimeError("CUDA error: out of memory\nand more")
        return empty(*args, **kwargs)

    monkeypatch.setattr(torch, "empty", unpinned)
    with pytest.raises(InputError, match=r"pinned host memory.*place the reward model `zero3`.*out of memory$"):
        LayerStream([Recorded(1)], torch.device("cuda"))
