"""UltraEdit's parts: gradients at the answers, their running moments, and the ridge solve."""
