"""Whether edits last: one more step after a checkpoint, and the checkpoint that it makes."""
