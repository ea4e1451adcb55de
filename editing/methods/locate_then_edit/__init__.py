"""What ROME, MEMIT, EMMET and AlphaEdit share: subjects, keys, values, covariance and the three solutions."""
