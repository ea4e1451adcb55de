"""One editing job: a model, a method and requests in; checkpoints out."""
