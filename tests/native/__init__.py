"""The compiled parts, and how they are built."""
