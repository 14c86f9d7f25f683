"""The data sets of Appendix B in their official layouts, with a module for each layout; `opening` tells them apart.

Here are only their names, so that `--help` is quick.
"""

from __future__ import annotations

from typing import Any

TASKS = {"classification": "Main", "action": "Action"}  # VOC's, and the folders of their lists
# torchvision's class and arguments for each download, the folder that it makes, and where to get the data by hand.
_VOC = "http://host.robots.ox.ac.uk/pascal/VOC"
DOWNLOADS: dict[str, tuple[str, tuple[dict[str, Any], ...], str, str]] = {
    "caltech101": (
        "Caltech101",
        ({},),
        "caltech101/101_ObjectCategories",
        "https://data.caltech.edu/records/mzrjq-6wc02",
    ),
    "caltech256": (
        "Caltech256",
        ({},),
        "caltech256/256_ObjectCategories",
        "https://data.caltech.edu/records/nyy15-4j048",
    ),
    "voc2007": (
        "VOCDetection",
        ({"year": "2007", "image_set": "trainval"}, {"year": "2007", "image_set": "test"}),
        "VOCdevkit/VOC2007",
        f"{_VOC}/voc2007/",
    ),
    "voc2012": ("VOCDetection", ({"year": "2012", "image_set": "trainval"},), "VOCdevkit/VOC2012", f"{_VOC}/voc2012/"),
}
NAMES = tuple(DOWNLOADS)
