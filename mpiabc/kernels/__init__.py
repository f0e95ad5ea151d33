"""Perturbation kernels, and the proposals that they make of a population."""
