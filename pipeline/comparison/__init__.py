"""What differs between two images: no files, no Kafka."""
