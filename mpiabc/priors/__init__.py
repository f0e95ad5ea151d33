"""Priors: one problem's, its marginals, what a constraint leaves of it; several models' as one."""
