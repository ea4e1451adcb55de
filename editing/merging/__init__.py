"""Merging of weight changes: several changes of one tensor, made apart from each other, into one."""
