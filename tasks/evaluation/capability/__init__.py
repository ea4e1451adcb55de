"""General benchmarks: which lm-eval tasks, from where, their scores, and when they are worth running."""
