"""Weights that pass through the device a layer at a time; here the device is the CPU."""

import logging
from contextlib import contextmanager, suppress

import pytest
import torch
from transformers import AttentionInterface, AutoModelForSequenceClassification, MistralConfig

from trl_hybrid.reward_model import RewardModel
from trl_hybrid.reward_model.packing import ATTENTION, packed_attention
from trl_hybrid.reward_model.streamed import ALIGNMENT, LayerStream


COMPLETIONS = ["x" * length for length in (0, 3, 40, 41, 42, 90, 91, 200)]


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("token_budget", [None, 60])
def test_streamed_scores_equal_plain_transformers_row_by_row(save_model, family, token_budget):
    saved = save_model(family)
    scorer = RewardModel(saved.path, placement="streamed", device="cpu", token_budget=token_budget, cache_size=0)
    expected = [saved.score("Q", completion) for completion in COMPLETIONS]
    for _ in range(2):  # the second call begins with layers fetched at the end of the first
        assert scorer.compute_batch_reward("Q", COMPLETIONS) == pytest.approx(expected, abs=1e-5)


def test_every_layer_is_copied_once_a_pass_however_many_batches_there_are(qwen2, monkeypatch):
    scorer = RewardModel(qwen2.path, placement="streamed", device="cpu", token_budget=100, cache_size=0)
    fetched = []
    fetch = LayerStream._fetch
    monkeypatch.setattr(LayerStream, "_fetch", lambda stream, use: fetched.append(use) or fetch(stream, use))
    scorer.compute_batch_reward("Q", COMPLETIONS)
    batches = len(
        scorer.backend.forward.plan([scorer.renderer.render(["Q"], [c], [False])[0].ids for c in COMPLETIONS], 100)
    )
    assert 1 < batches <= 8
    assert len(fetched) == len(scorer.backend.layers) == 2


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


def test_the_head_is_fp32_while_the_body_is_bf16(qwen2):
    backend = RewardModel(qwen2.path, placement="streamed", device="cpu", dtype="bfloat16").backend
    assert backend.head.weight.dtype == torch.float32
    assert {slab.dtype for slab in backend.stream.slabs} == {torch.bfloat16}


def test_weights_lie_in_one_aligned_slab_a_layer_and_nowhere_else():
    layers = [Recorded(value) for value in range(2)]
    stream = LayerStream(layers, torch.device("cpu"))
    for layer, slab in zip(layers, stream.slabs, strict=True):
        for weight in layer.parameters():
            assert weight.untyped_storage().data_ptr() == slab.untyped_storage().data_ptr()
            assert weight.storage_offset() % ALIGNMENT == 0


def test_a_pass_that_was_broken_off_leaves_the_next_one_right(qwen2, monkeypatch):
    scorer = RewardModel(qwen2.path, placement="streamed", device="cpu", cache_size=0)
    expected = [qwen2.score("Q", completion) for completion in COMPLETIONS]
    through = type(scorer.backend)._through
    calls = []

    def interrupted(layer, weights, passenger):
        calls.append(layer)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return through(layer, weights, passenger)

    monkeypatch.setattr(type(scorer.backend), "_through", staticmethod(interrupted))
    with pytest.raises(KeyboardInterrupt):
        scorer.compute_batch_reward("Q", COMPLETIONS)
    assert scorer.compute_batch_reward("Q", COMPLETIONS) == pytest.approx(expected, abs=1e-5)


def test_running_out_of_memory_halves_the_budget_and_begins_again(qwen2, monkeypatch, caplog):
    scorer = RewardModel(qwen2.path, placement="streamed", device="cpu", cache_size=0)
    expected = [qwen2.score("Q", completion) for completion in COMPLETIONS]
    through = type(scorer.backend)._through

    def cramped(layer, weights, passenger):
        if passenger.hidden.shape[1] > 300:
            raise torch.OutOfMemoryError("no room")
        return through(layer, weights, passenger)

    monkeypatch.setattr(type(scorer.backend), "_through", staticmethod(cramped))
    with caplog.at_level(logging.WARNING):
        assert scorer.compute_batch_reward("Q", COMPLETIONS) == pytest.approx(expected, abs=1e-5)
    assert scorer.backend.token_budget <= 300
    assert "the token budget is" in caplog.text


def test_an_architecture_that_cannot_be_streamed_is_refused_with_what_can_be_done(qwen2, tmp_path):
    qwen2.tokenizer.save_pretrained(tmp_path)
    config = MistralConfig(
        vocab_size=200, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, num_labels=1,
    )  # fmt: skip
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="type 'mistral', is not\\. Place it `resident`, `zero3` or `cpu`"):
        RewardModel(str(tmp_path), placement="streamed", device="cpu")


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


def test_streamed_rows_that_do_not_score_as_plain_ones_are_refused(qwen2, monkeypatch):
    def unscaled(module, query, key, value, attention_mask, scaling=None, packing=None, **kwargs):
        return packed_attention(module, query, key, value, attention_mask, scaling=1.0, packing=packing)

    monkeypatch.setitem(AttentionInterface._global_mapping, ATTENTION, unscaled)
    with pytest.raises(ValueError, match="Streamed rows must score as plain ones do"):
        RewardModel(qwen2.path, placement="streamed", device="cpu")
