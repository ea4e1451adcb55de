"""Export of a run's rows to experiment trackers, after the run and from the warehouse alone."""
