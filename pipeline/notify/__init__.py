"""Who else is told of an image event, and the sending."""
