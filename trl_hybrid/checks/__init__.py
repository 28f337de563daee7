"""Is everything there that a run needs? Each check yields findings: ok, or a problem and its fix."""
