"""`python -m vggrepro`: the same as the console script (torchrun needs a module)."""

from vggrepro.cli import main

if __name__ == "__main__":
    main()
