"""Documents of the results: Markdown, CSV, LaTeX, figures and the HTML page (`page`).

May import `results` and what stands below it; never torch.
"""
