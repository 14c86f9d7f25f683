"""The one exception that means 'your input is wrong', as against 'vggrepro has a bug'."""


class InputError(Exception):
    """Bad input. The message is one line: what is wrong, where, and what to do. Exit code 2."""
