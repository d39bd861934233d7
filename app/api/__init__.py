"""The model API: serves what the alias `production` points at, and takes feedback on its predictions."""
