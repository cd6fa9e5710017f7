"""Claims about preference."""
