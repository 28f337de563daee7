"""What training takes of a device, from configurations alone."""
