"""Real sets inside packages: which there are, the wheel that they come in, and how they are fetched."""
