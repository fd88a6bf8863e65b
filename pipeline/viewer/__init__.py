"""What the viewer knows and shows: an index of the databases, what Kafka adds, and pictures."""
