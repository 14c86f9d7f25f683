"""The subcommands of the command line, one thin function each: options in, one call of a stage, results on stdout.

May import everything but `cli`. torch and pandas are imported inside the commands that need them, so that `--help` is
quick.
"""
