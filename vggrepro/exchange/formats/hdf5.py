"""HDF5: Keras's weights and models, or a snapshot that Caffe wrote (`.caffemodel.h5`), by what is inside."""

from __future__ import annotations

import re

from vggrepro import paper
from vggrepro.exchange.formats import caffe, keras
from vggrepro.exchange.formats.base import Foreign, WeightsFile
from vggrepro.exchange.formats.hdf5_file import datasets, opened

SNAPSHOT = re.compile(r"data/([^/]+)/([0-9])")  # Caffe's: the layer, the blob


def read(source: WeightsFile, net: str) -> Foreign:
    """The weights of an .h5, .keras or .caffemodel.h5 file.

    Raises:
        InputError: h5py is missing, a damaged file, another net, no FC layers, Theano's ordering, or too large.
    """
    net = paper.check_net(net)
    with opened(source) as file:
        held = datasets(file, str(source.path))
        blobs = {match.groups(): held[path] for path in held if (match := SNAPSHOT.fullmatch(path))}
        if blobs and "layer_names" not in file.attrs:
            layers: dict[str, list[caffe.Stored]] = {}
            for (layer, _), data in sorted(blobs.items()):
                layers.setdefault(layer, []).append(caffe.Stored(data))
            return caffe.foreign(
                [caffe.FileLayer(name, blobs=list(parts)) for name, parts in layers.items()], source, net
            )
        return keras.foreign(file, held, source, net)
