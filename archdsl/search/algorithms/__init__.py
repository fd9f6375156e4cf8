"""Algorithms that propose networks of a space, and are told what became of them."""
