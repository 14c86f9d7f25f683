"""vggrepro: the tables of Simonyan & Zisserman (arXiv 1409.1556), reproduced from the command line."""

__version__ = "0.1.0"
