"""Entropy models: what the probability of every symbol is, and the integer tables that the coder uses."""
