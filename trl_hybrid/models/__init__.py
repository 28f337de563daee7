"""Model files, looked at before anything large is loaded."""
