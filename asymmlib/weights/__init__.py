"""Weights on disk: our own files (`own`), the authors' (`official`, `convert`), those that come with the book."""
