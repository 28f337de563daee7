"""Tokens looked up in host memory; here the device is the CPU, and a GPU's stream is played by its meaning."""

import pytest
import torch
from torch.nn import functional as F

from trl_hybrid.reward_model import host_embedding
from trl_hybrid.reward_model.host_embedding import HostEmbedding


TABLE = torch.arange(40.0).reshape(20, 2)
CALLS = [[7], [3, 3, 3], [*range(19, -1, -1), 5, 5, 0], [4, 4, 1, 19, 1, 0, 2, 2]]


@pytest.mark.parametrize("piece_rows", [1, 3, 5, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_get_their_embeddings_however_small_the_pieces_are(piece_rows, dtype):
    embedding = HostEmbedding(TABLE.to(dtype), torch.device("cpu"), piece_rows)
    for ids in map(torch.tensor, CALLS):
        rows = embedding.look_up(ids)
        assert rows.dtype == dtype
        assert torch.equal(rows, F.embedding(ids, TABLE.to(dtype)))


def test_each_distinct_token_is_gathered_once(monkeypatch):
    gathered = []
    gather = torch.index_select

    def watched(table, dim, ids, out):
        gathered.append(ids.tolist())
        return gather(table, dim, ids, out=out)

    monkeypatch.setattr(torch, "index_select", watched)
    HostEmbedding(TABLE, torch.device("cpu"), 3).look_up(torch.tensor(CALLS[3]))
    assert gathered == [[0, 1, 2], [4, 19]]


class LateStream:
    """A GPU's stream that does nothing until somebody waits for it, and then no more than what is waited for."""

    def __init__(self):
        self.work = []

    def run(self, until=None):
        while self.work:
            piece = self.work.pop(0)
            if piece is until:
                return
            if callable(piece):
                piece()


class LateEvent:
    def __init__(self, stream):
        self.stream, self.mark = stream, None

    def record(self, stream):
        self.mark = object()
        stream.work.append(self.mark)

    def synchronize(self):
        if self.mark in self.stream.work:
            self.stream.run(self.mark)


@pytest.fixture
def late(monkeypatch):
    """An embedding whose copies are late, its stream, and what it has looked up."""
    stream, results = LateStream(), []
    embedding = HostEmbedding(TABLE, torch.device("cpu"), 2)
    embedding.copied = [LateEvent(stream), LateEvent(stream)]
    copy, look_up = torch.Tensor.copy_, F.embedding

    def copy_later(rows, piece, non_blocking):
        assert non_blocking
        stream.work.append(lambda: copy(rows, piece))
        return rows

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.Tensor, "copy_", copy_later)
    monkeypatch.setattr(
        host_embedding.F, "embedding", lambda *given: stream.work.append(lambda: results.append(look_up(*given)))
    )
    return embedding, stream, results


def test_no_piece_is_filled_again_while_it_is_still_being_copied(late, monkeypatch):
    embedding, stream, results = late
    for ids in CALLS:
        embedding.look_up(torch.tensor(ids))
    stream.run()
    monkeypatch.undo()
    for ids, rows in zip(CALLS, results, strict=True):
        assert torch.equal(rows, F.embedding(torch.tensor(ids), TABLE))


def test_one_piece_is_filled_while_the_other_is_copied(late):
    embedding, stream, results = late
    embedding.look_up(torch.tensor([1, 2, 3, 4]))
    assert sum(map(callable, stream.work)) == 3  # two copies and what needs them: nothing was waited for
    assert results == []
