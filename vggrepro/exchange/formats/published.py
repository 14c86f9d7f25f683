"""Released files of VGG weights, known by their hashes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vggrepro.exchange.formats.base import NOT_THE_PAPERS, WeightsFile

ENDINGS = {".caffemodel", ".h5", ".mat", ".pth", ".pt"}  # of the files below
JITTERED = "256:512"  # the authors' released D and E are those trained with S in [256;512]


@dataclass(frozen=True, slots=True)
class Release:
    """A released file."""

    net: str
    origin: str  # as `Foreign.origin`
    sha256: str = ""  # or its beginning
    md5: str = ""
    size: int = 0  # bytes, where known
    scale: str | None = JITTERED
    caffe: bool = False  # a state dict whose input is Caffe's
    stem: str = ""  # the name under which it is published, without its ending


def _authors(what: str) -> str:
    return f"trained elsewhere: {what}"


FILES = (
    Release(
        "D",
        _authors("the authors' Caffe model VGG_ILSVRC_16_layers"),
        "a6196bc498e45ea4cb2637114ae8db9410cf1556fd60a55ae93272371beba197",
        "441315b0ff6932dbfde97731be7ca852",
        553_432_081,
        stem="VGG_ILSVRC_16_layers",
    ),
    Release(
        "E",
        _authors("the authors' Caffe model VGG_ILSVRC_19_layers"),
        md5="b5c644beabd7cf06bdd9065cfd674c97",
        size=574_671_192,
        stem="VGG_ILSVRC_19_layers",
    ),
    Release(
        "D",
        _authors("MatConvNet's imagenet-vgg-verydeep-16, of the authors"),
        md5="f72d927587ca4c97fbd165ec9cb9997f",
        stem="imagenet-vgg-verydeep-16",
    ),
    Release(
        "E",
        _authors("MatConvNet's imagenet-vgg-verydeep-19, of the authors"),
        md5="106118b7cf60435e6d8e04f6a6dc3657",
        stem="imagenet-vgg-verydeep-19",
    ),
    Release(
        "E",
        _authors("MatConvNet's imagenet-vgg-verydeep-19 (beta16), of the authors"),
        md5="8ee3263992981a1d26e73b3ca028a123",
    ),
    Release(
        "D",
        _authors("Keras's VGG16, of the authors' Caffe model"),
        md5="64373286793e3c8b2b4e3219cbf3544b",
        stem="vgg16_weights_tf_dim_ordering_tf_kernels",
    ),
    Release(
        "E",
        _authors("Keras's VGG19, of the authors' Caffe model"),
        md5="cbe5617147190e668d6c5d5026f83318",
        stem="vgg19_weights_tf_dim_ordering_tf_kernels",
    ),
    *(
        Release(
            net,
            _authors(f"the authors' Caffe model converted for PyTorch, {name}"),
            name.partition("-")[2],
            caffe=True,
            stem=name,
        )
        for net, name in (("D", "vgg16-00b39a1b"), ("E", "vgg19-d01eb7cb"))
    ),
    *(
        Release(
            net,
            f"trained elsewhere: torchvision's {name}, {NOT_THE_PAPERS}",
            name.partition("-")[2],
            scale=None,
            stem=name,
        )
        for net, name in (
            ("A", "vgg11-8a719046"),
            ("B", "vgg13-19584684"),
            ("D", "vgg16-397923af"),
            ("E", "vgg19-dcbb9e9d"),
        )
    ),
)


def find(source: WeightsFile) -> Release | None:
    """Which released file this is, by its hash; hashing half a gigabyte takes a second or two."""
    for file in FILES:
        if (file.sha256 and source.sha256.startswith(file.sha256)) or (file.md5 and source.md5 == file.md5):
            return file
    return None


def origin_of(source: WeightsFile, tool: str) -> dict[str, Any]:
    """Arguments of `Foreign` for a file of `tool`, such as "the Keras weights": where it is from, place and hashes."""
    known = find(source)
    return {
        "origin": known.origin if known else f"trained elsewhere: {tool} {source.path.name}",
        "known": known is not None,
        "scale": known.scale if known else None,
        "place": str(source.path),
        "hashes": {"sha256": source.sha256, "md5": source.md5},
    }


def recognise(source: WeightsFile) -> Release | None:
    """Which released file this is, by its name; where that says nothing, by its hash."""
    stem = source.path.name.partition(".")[0]
    named = next((file for file in FILES if file.stem and file.stem == stem), None)
    return named or (find(source) if source.path.suffix in ENDINGS else None)
