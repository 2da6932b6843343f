"""What may be concluded from numbers: paired differences, tests of a declared family, and four words.

Nothing here knows a metric, a task or a file; docs/statistics.md has the rules and the simulations behind
them.
"""
