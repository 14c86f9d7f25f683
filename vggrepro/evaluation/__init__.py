"""From a run and images to posteriors: dense evaluation and crops of Sect. 3.2, and `predict`.

May import `posteriors` and what stands below it; not `training`.
"""
