"""The engine: one running model that generates, scores and serves lm-eval, and takes new weights while it runs."""
