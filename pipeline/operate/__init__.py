"""What is not a stage: the commands of `python -m pipeline`."""
