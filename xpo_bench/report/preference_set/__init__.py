"""What a preference set holds, and what that means for the algorithms: the report of `xpo-bench data`."""
