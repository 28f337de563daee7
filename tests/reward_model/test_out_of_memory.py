"""Memory that runs out: what is done is kept, the rest is taken in smaller pieces, and what cannot be has a fix."""

import pytest
import torch

from trl_hybrid.reward_model import RewardModel, backend
from trl_hybrid.reward_model.out_of_memory import loading_into, score_what_fits
from trl_hybrid.reward_model.plan import Family


def test_what_is_scored_stays_scored_and_the_rest_is_cut_anew():
    rows = [(length,) * length for length in (5, 3, 4, 1, 2)]
    size, scored = [3], []

    def pieces(left):
        batches = [[Family(0, (row,))] for row in range(len(left))]
        return [batches[first : first + size[0]] for first in range(0, len(left), size[0])]

    def score(left, piece):
        lengths = [len(left[row]) for batch in piece for family in batch for row in family.rows]
        if sum(lengths) > 6 and scored:  # the first piece passes, the second, of 1 and 2, does not
            raise AssertionError
        if len(scored) == 1 and size[0] == 3:
            size[0] = 1
            return None
        scored.append(lengths)
        return [float(length) for length in lengths]

    assert score_what_fits(rows, pieces, score) == [5.0, 3.0, 4.0, 1.0, 2.0]
    assert scored == [[5, 3, 4], [1], [2]]


@pytest.mark.parametrize(
    ("placement", "fix"), [("resident", "Place it `streamed`, `zero3` or `cpu`"), ("streamed", "Place it `cpu`")]
)
def test_a_model_that_does_not_fit_is_told_where_it_would(qwen2, monkeypatch, placement, fix):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 130.00 MiB.\nand more")

    monkeypatch.setattr(backend, "load_model", full)
    monkeypatch.setattr(backend, "load_streamed", full)
    with pytest.raises(torch.OutOfMemoryError) as error:
        RewardModel(qwen2.path, placement=placement, device="cpu")
    text = str(error.value)
    assert f"placed `{placement}` it does not. {fix}, free the device" in text
    assert text.endswith("The cause: CUDA out of memory. Tried to allocate 130.00 MiB.")


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="boom"), loading_into("resident", torch.device("cuda"), "RM"):
        raise RuntimeError("boom")
