"""Where images come from, and the image before each."""
