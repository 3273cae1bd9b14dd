"""The records of runs on disk: opening their folders so that nothing of anybody is lost."""
