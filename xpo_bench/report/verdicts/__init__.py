"""Which algorithm, and how sure is that: what a report opens with."""
