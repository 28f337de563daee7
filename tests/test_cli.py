"""A command takes whole options only, and answers for itself."""

import pytest

from trl_hybrid.cli import main


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["eval", "--model", "data/embedded_policy", "--bas"], "--bas"),
        (["push", "runs/embedded", "--priv"], "--priv"),
        (["report", "runs/embedded", "--colour", "red"], "--colour red"),
    ],
)
def test_abbreviated_and_unknown_options_are_refused(words, wrong, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"usage: trl-hybrid {words[0]}")
    assert said.endswith(f"error: unrecognized arguments: {wrong}\n")
