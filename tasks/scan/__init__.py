"""Single edits that break a model: each request edited alone, and the hard cases kept as a dataset."""
