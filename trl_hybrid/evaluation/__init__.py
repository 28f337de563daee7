"""A model measured: its answers sampled and judged, and what they say with their intervals."""
