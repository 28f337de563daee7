"""Where a policy comes from, and how it answers problems."""
