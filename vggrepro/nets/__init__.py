"""The nets of Table 1: layers, first weights, cost, weights on disk, a trained net.

May import `runs`, `data`, `system` and the root.
"""
