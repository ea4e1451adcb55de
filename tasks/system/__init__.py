"""What every stage needs of the machine: locks, progress, stage keys, and the reading of untrusted files."""
