"""The commands, thin: options in, one call of a stage, results on stdout, talk on stderr.

torch and pandas are imported by the commands that need them, so that `--help` is quick.
"""
