"""Latency from operational intensity: the roofline model of arXiv 2404.10518, equation 1."""
