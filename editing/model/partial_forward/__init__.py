"""Partial forward passes: cached prefixes, trained and shifted suffixes, sequence packing and batching."""
