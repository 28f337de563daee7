"""One step of training: the trainer, its settings, and what it adds to TRL's."""
