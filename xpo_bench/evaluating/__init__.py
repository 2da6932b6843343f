"""`xpo-bench evaluate`: models that somebody has trained, measured as the suite measures its own."""
