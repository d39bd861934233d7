"""The servers that the API is measured against. Each file is run by the Python of its own environment, as a script."""
