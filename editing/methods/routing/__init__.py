"""Methods that keep their edits beside the weights, and choose among them by the prompt."""
