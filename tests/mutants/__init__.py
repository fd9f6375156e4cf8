"""Faults put into our own compiler, each of which the ordinary tests must find."""
