"""Run folders: what a run's files hold (`config.RunConfig`), which runs exist, how far they are.

May import `data`, `system` and the root; never torch.
"""
