"""Which rows go into which micro-batch."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_hybrid.training.micro_batches import keep_groups_together, order_matters


def batches_of(prompts, size):
    """Micro-batches as TRL buffers them, each row known by its number."""
    count = len(prompts)
    whole = {
        "prompt_ids": torch.tensor([[0, prompt] for prompt in prompts]),
        "prompt_mask": torch.tensor([[0, 1]] * count),
        "row": torch.arange(count),
        "names": [f"row {row}" for row in range(count)],
    }
    shared = {"num_items_in_batch": torch.tensor(99), "old_per_token_logps": None}
    return [{name: v[i : i + size] for name, v in whole.items()} | shared for i in range(0, count, size)]


def test_groups_stand_together_by_first_appearance_and_rows_keep_their_order():
    ordered = keep_groups_together(batches_of([5, 3, 3, 5, 4, 3], size=2), window=3)
    assert [batch["row"].tolist() for batch in ordered] == [[0, 3], [1, 2], [5, 4]]
    assert [batch["names"] for batch in ordered] == [["row 0", "row 3"], ["row 1", "row 2"], ["row 5", "row 4"]]
    assert all(batch["num_items_in_batch"] == 99 for batch in ordered)
    assert all(batch["old_per_token_logps"] is None for batch in ordered)


def test_padding_tells_prompts_apart():
    batch = {
        "prompt_ids": torch.tensor([[0, 7], [0, 7], [0, 7]]),
        "prompt_mask": torch.tensor([[0, 1], [1, 1], [0, 1]]),
    }
    (ordered,) = keep_groups_together([batch], window=1)
    assert ordered["prompt_mask"].tolist() == [[0, 1], [0, 1], [1, 1]]


@settings(max_examples=100, deadline=None)
@given(data=st.data(), window=st.integers(1, 3), windows=st.integers(1, 3), size=st.integers(1, 4))
def test_no_row_leaves_its_optimizer_step_and_whole_groups_fit_where_sizes_allow(data, window, windows, size):
    rows = window * windows * size
    prompts = data.draw(st.lists(st.integers(0, 4), min_size=rows, max_size=rows))
    ordered = keep_groups_together(batches_of(prompts, size), window)
    for start in range(0, len(ordered), window):
        found = torch.cat([batch["row"] for batch in ordered[start : start + window]]).tolist()
        assert sorted(found) == list(range(start * size, (start + window) * size))
        kinds = [prompts[row] for row in found]
        assert sum(one != two for one, two in pairwise(kinds)) == len(set(kinds)) - 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, False),
        ({"loss_type": "bnpo"}, True),
        ({"top_entropy_quantile": 0.2}, True),
        ({"entropy_coef": 0.01}, True),
        ({"use_adaptive_entropy": True}, True),
    ],
)
def test_a_loss_that_depends_on_the_rows_of_a_micro_batch_is_known(change, expected):
    usual = {"loss_type": "dapo", "top_entropy_quantile": 1.0, "entropy_coef": 0.0, "use_adaptive_entropy": False}
    assert order_matters(SimpleNamespace(**usual | change)) is expected
