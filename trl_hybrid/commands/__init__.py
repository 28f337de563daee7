"""The commands of `trl-hybrid`: one module each, with `add_parser` and `run`."""
