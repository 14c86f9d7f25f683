"""Reads and writes weights of other tools: `importing`, `exporting`, the model card, `formats` with a module for each.

May import what stands below `results`; not `report` and `doctor`.
"""
