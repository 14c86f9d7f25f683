"""From a data set to a run: crops, the step of Sect. 3.1, checkpoints, the chain of runs.

May import `posteriors` and what stands below it; not `evaluation`.
"""
