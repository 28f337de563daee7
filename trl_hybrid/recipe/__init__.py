"""What a recipe does around training, so that it can be read in a minute."""
