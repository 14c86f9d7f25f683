"""From images of any layout to a prepared data set: sources, decoding, rescaling, Arrow shards.

May import `system` and the root; never torch.
"""
