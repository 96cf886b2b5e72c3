"""Smaller by removing: weights that become zero, and layers, heads, neurons, channels and tokens that go."""
