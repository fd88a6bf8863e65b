"""The commands of `python -m pipeline`: they run the pipeline, watch it, prove and repair it.

Each command is a module with a `main`; read `run` first. `audit` is a room of its own.
"""
