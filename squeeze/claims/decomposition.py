"""Claims about decomposition."""
