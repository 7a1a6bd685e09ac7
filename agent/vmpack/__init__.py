"""vmpack borrows the memory that guests do not use, and gives every byte back when they need it."""

__version__ = "0.1.0"
