"""From posteriors to tables and claims: which files may be used, errors, intervals, tests.

May import `posteriors`, `runs`, `data`, `system` and the root; never torch.
"""
