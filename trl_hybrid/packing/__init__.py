"""Rows end to end in one packed row, what they share computed once: which tokens see each other, and how."""
