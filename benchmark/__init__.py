"""The benchmark of the project's two papers: every system on the same frames, in one table."""
