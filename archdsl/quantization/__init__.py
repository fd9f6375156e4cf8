"""Static int8: the ranges of a network's values, and the integers that stand for them."""
