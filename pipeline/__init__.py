"""The rooms of the pipeline: all that the three programs use; see CONTRIBUTING.md."""
