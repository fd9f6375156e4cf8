"""Analyses (frozen tables) and rewrites (new graphs) over the operators, one file each."""
