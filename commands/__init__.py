"""What isn't a stage: the commands of `python -m pipeline`."""
