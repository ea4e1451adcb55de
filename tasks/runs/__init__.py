"""A run on the disk: its folders and rows, its status, verification and pruning."""
