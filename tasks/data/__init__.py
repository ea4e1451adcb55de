"""From a dataset to edit requests: catalog, files, rows, duplicates, and the store that a run streams them from."""
