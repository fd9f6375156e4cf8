"""Weights: drawn from a seed, read from files, checked against a graph, imported from others.

A set of weights is a mapping from the emitted module's `state_dict` keys to float32 arrays in
PyTorch's shapes (a convolution's weight is out x in/groups x height x width). All backends take the
same set.
"""
