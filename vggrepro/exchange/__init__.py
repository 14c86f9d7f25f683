"""Weights of other tools in and out: `importing`, `exporting`, the model card, one module a format in `formats`.

May import what stands below `results`; not `report` and `doctor`.
"""
