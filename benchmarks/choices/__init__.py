"""What real choices say of the algorithms, and whether synthetic worlds say the same."""
