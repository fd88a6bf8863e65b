"""The mock databases: files that appear whole or not at all."""
