"""Static pages over all runs of a warehouse."""
