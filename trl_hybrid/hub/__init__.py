"""A run's model on the Hub: checked as it was saved, described by a card, uploaded; each can be repeated."""
