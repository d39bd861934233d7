"""What visitors see: one module for each page, and one for each large part of a page."""
