"""Running only the part of a forward pass that is needed: kept prefixes, trained suffixes, packing and batching."""
