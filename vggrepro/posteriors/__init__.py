"""Posterior files: their format, their names by test protocol, means of many files, ranks and errors.

May import `nets` (types only), `runs`, `data`, `system` and the root; never torch.
"""
