"""Running the units of a run on many devices and machines."""
