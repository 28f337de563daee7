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


def test_no_piece_is_filled_again_while_it_is_still_being_copied(monkeypatch):
    stream = LateStream()
    embedding = HostEmbedding(TABLE, torch.device("cpu"), 2)
    embedding.copied = [LateEvent(stream), LateEvent(stream)]
    copy, look_up = torch.Tensor.copy_, F.embedding
    results = []

    def later(rows, piece, non_blocking):
        assert non_blocking
        stream.work.append(lambda: copy(rows, piece))
        return rows

    def after_the_copies(places, rows):
        stream.work.append(lambda: results.append(look_up(places, rows)))

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.Tensor, "copy_", later)
    monkeypatch.setattr(host_embedding.F, "embedding", after_the_copies)
    for ids in CALLS:
        embedding.look_up(torch.tensor(ids))
    assert len(results) < len(CALLS)  # what follows is not waited for
    stream.run()
    monkeypatch.undo()
    for ids, rows in zip(CALLS, results, strict=True):
        assert torch.equal(rows, F.embedding(torch.tensor(ids), TABLE))
