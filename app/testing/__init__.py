"""What tests share. Only tests import it, and it may import everything."""
