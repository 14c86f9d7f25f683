"""The machine: files, devices, processes, progress, interrupts, and the commands that messages print.

May import only the modules at the root (`errors`, `paper`, `recipe`).
"""
