"""Checks: the machine and its packages, the data set, the runs, mistakes in imported weights.

May import what stands below `results`; not `report` and `exchange`.
"""
