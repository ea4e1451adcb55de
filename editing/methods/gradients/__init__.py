"""Shared by UltraEdit and StableEdit: gradients at the answers, their running moments, and the ridge solve."""
