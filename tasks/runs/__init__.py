"""A run on the disk: its folders and rows, its status, its verification and its pruning."""
