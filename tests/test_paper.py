"""The paper as data: published numbers, parameter counts, scales, the chain of runs."""

from __future__ import annotations

import csv
import io

import pytest
from conftest import PARAMETERS

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.paper import JITTER, S256, S384, Architecture, Run, Scale

# Tables 2 to 7, 11 and 12 as the paper prints them, typed in once more.
PRINTED = {
    2: """\
net,parameters_millions
A,133
A-LRN,133
B,133
C,134
D,138
E,144
""",
    3: """\
net,S,Q,top1_val_error,top5_val_error
A,256,256,29.6,10.4
A-LRN,256,256,29.7,10.5
B,256,256,28.7,9.9
C,256,256,28.1,9.4
C,384,384,28.1,9.3
C,[256;512],384,27.3,8.8
D,256,256,27.0,8.8
D,384,384,26.8,8.7
D,[256;512],384,25.6,8.1
E,256,256,27.3,9.0
E,384,384,26.9,8.7
E,[256;512],384,25.5,8.0
""",
    4: """\
net,S,Q,top1_val_error,top5_val_error
B,256,"224,256,288",28.2,9.6
C,256,"224,256,288",27.7,9.2
C,384,"352,384,416",27.8,9.2
C,[256;512],"256,384,512",26.3,8.2
D,256,"224,256,288",26.6,8.6
D,384,"352,384,416",26.5,8.6
D,[256;512],"256,384,512",24.8,7.5
E,256,"224,256,288",26.9,8.7
E,384,"352,384,416",26.7,8.6
E,[256;512],"256,384,512",24.8,7.5
""",
    5: """\
net,method,top1_val_error,top5_val_error
D,dense,24.8,7.5
D,multi-crop,24.6,7.5
D,multi-crop & dense,24.4,7.2
E,dense,24.8,7.5
E,multi-crop,24.6,7.4
E,multi-crop & dense,24.4,7.1
""",
    6: """\
group,models,method,top1_val_error,top5_val_error,top5_test_error
ILSVRC submission,"D/256/224,256,288; D/384/352,384,416; D/[256;512]/256,384,512; C/256/224,256,288; \
C/384/352,384,416; E/256/224,256,288; E/384/352,384,416",dense,24.7,7.5,7.3
post-submission,"D/[256;512]/256,384,512; E/[256;512]/256,384,512",dense,24.0,7.1,7.0
post-submission,"D/[256;512]/256,384,512; E/[256;512]/256,384,512",multi-crop,23.9,7.2,
post-submission,"D/[256;512]/256,384,512; E/[256;512]/256,384,512",multi-crop & dense,23.7,6.8,6.8
""",
    7: """\
method,top1_val_error,top5_val_error,top5_test_error
"VGG (2 nets, multi-crop & dense eval.)",23.7,6.8,6.8
"VGG (1 net, multi-crop & dense eval.)",24.4,7.1,7.0
"VGG (ILSVRC submission, 7 nets, dense eval.)",24.7,7.5,7.3
GoogLeNet (1 net),,7.9,7.9
GoogLeNet (7 nets),,6.7,6.7
MSRA (11 nets),,,8.1
MSRA (1 net),27.9,9.1,9.1
Clarifai (multiple nets),,,11.7
Clarifai (1 net),,,12.5
Zeiler & Fergus (6 nets),36.0,14.7,14.8
Zeiler & Fergus (1 net),37.5,16.0,16.1
OverFeat (7 nets),34.0,13.2,13.6
OverFeat (1 net),35.7,14.2,
Krizhevsky et al. (5 nets),38.1,16.4,16.4
Krizhevsky et al. (1 net),40.7,18.2,
""",
    11: """\
method,voc2007_map,voc2012_map,caltech101_mean_recall,caltech101_std,caltech256_mean_recall,caltech256_std,\
voc2007_map_extended_ilsvrc,voc2012_map_extended_ilsvrc
Zeiler & Fergus,,79.0,86.5,0.5,74.2,0.3,,
Chatfield et al.,82.4,83.2,88.4,0.6,77.6,0.1,,
He et al.,82.4,,93.4,0.5,,,,
Wei et al.,81.5,81.7,,,,,85.2,90.3
VGG Net-D (16 layers),89.3,89.0,91.8,1.0,85.0,0.2,,
VGG Net-E (19 layers),89.3,89.0,92.3,0.5,85.1,0.3,,
VGG Net-D & Net-E,89.7,89.3,92.7,0.5,86.2,0.3,,
""",
    12: """\
method,voc2012_action_map,pretrained_on_extended_ilsvrc
Oquab et al.,70.2,1512 classes
Gkioxari et al.,73.6,
Hoai,76.3,
"VGG Net-D & Net-E, image-only",79.2,
"VGG Net-D & Net-E, image and bounding box",84.0,
""",
}


@pytest.mark.parametrize(("net", "count"), PARAMETERS.items())
def test_parameter_counts_are_exact_and_round_to_table_2(net: str, count: int) -> None:
    assert Architecture(net).parameters == count
    printed = {row["net"]: int(row["parameters_millions"]) for row in paper.published(2)}
    assert round(count / 1e6) == printed[net]


def test_parameter_count_of_a_narrow_net_by_hand() -> None:
    # A at width 1/64, crop 32, 2 classes: channels 1 2 4 4 8 8 8 8, FC 64, one FC-6 position
    conv = (27 + 1) + (1 * 2 * 9 + 2) + (2 * 4 * 9 + 4) + (4 * 4 * 9 + 4) + (4 * 8 * 9 + 8) + 3 * (8 * 8 * 9 + 8)
    fc = (8 * 64 + 64) + (64 * 64 + 64) + (64 * 2 + 2)
    assert Architecture("A", 2, crop=32, width=1 / 64).parameters == conv + fc


def test_shapes_of_the_first_and_last_layers() -> None:
    shapes = Architecture("C", 1000).shapes()
    assert shapes["conv1_1.weight"] == (64, 3, 3, 3)
    assert shapes["conv3_3.weight"] == (256, 256, 1, 1)
    assert shapes["fc6.weight"] == (4096, 512 * 7 * 7)
    assert list(shapes)[-1] == "fc8.bias"
    assert Architecture("A", 10, crop=56).shapes()["fc6.weight"] == (
        4096,
        512,
    )  # 56 / 32 rounded down: one position


@pytest.mark.parametrize(("net", "layers"), {"A": 11, "B": 13, "C": 16, "D": 16, "E": 19, "B-5x5": 8}.items())
def test_number_of_weight_layers(net: str, layers: int) -> None:
    assert sum(name.endswith(".weight") for name in Architecture(net, 1000).shapes()) == layers


def test_the_shallow_net_replaces_pairs_by_one_5x5() -> None:
    assert all(block == [paper.Conv(block[0].name, 5, block[0].channels)] for block in paper.blocks("B-5x5"))  # type: ignore[union-attr]


def test_an_unknown_net_lists_the_choices() -> None:
    with pytest.raises(InputError, match="unknown net 'F'; choose one of A, A-LRN, B, B-5x5, C, D, E"):
        paper.check_net("F")


@pytest.mark.parametrize("table", PRINTED)
def test_published_numbers_are_the_papers(table: int) -> None:
    assert list(csv.DictReader(io.StringIO(PRINTED[table]))) == list(paper.published(table))


@pytest.mark.parametrize(("text", "low", "high"), [("256", 256, 256), ("256:512", 256, 512), ("[256;512]", 256, 512)])
def test_scale_parsing(text: str, low: int, high: int) -> None:
    assert Scale.parse(text) == Scale(low, high)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--scale '' is not a scale; give S such as 256, or MIN:MAX such as 256:512"),
        ("big", "--scale 'big' is not a scale"),
        ("256:", "--scale '256:' is not a scale"),
        ("-256", "--scale '-256' is not a scale"),
        ("25.6", "--scale '25.6' is not a scale"),
        ("256²", "--scale '256²' is not a scale"),
        ("1:2:3", "--scale '1:2:3' is not a scale"),
        ("512:256", "MIN 512 is larger than MAX 256"),
        ("128", "S = 128 is below the crop of 224"),
    ],
)
def test_scale_errors(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        Scale.parse(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_test_scales() -> None:
    assert S256.test_scales == (224, 256, 288)
    assert S384.test_scales == (352, 384, 416)
    assert JITTER.test_scales == (256, 384, 512)
    assert Scale(224, 224).test_scales == (224, 256)  # 192 is below the crop


def test_scale_in_words() -> None:
    assert [str(JITTER), JITTER.slug, JITTER.label] == ["256:512", "256-512", "[256;512]"]
    assert [str(S256), S256.slug, S256.label] == ["256", "256", "256"]


def test_quarter_scale_is_exact() -> None:
    assert [paper.real_pixels(q, 56) for q in (224, 256, 288, 384, 512)] == [56, 64, 72, 96, 128]


@pytest.mark.parametrize("stride", paper.STRIDES)
def test_exact_reductions_keep_table_1_and_the_papers_score_maps(stride: int) -> None:
    crop = 7 * stride
    assert Architecture("D", 1000, crop, 1.0, stride).shapes() == Architecture("D", 1000).shapes()
    sides = [paper.real_pixels(q, crop) // stride - 6 for q in (224, 256, 288, 352, 384, 416, 512)]
    assert [side**2 for side in sides] == [1, 4, 9, 25, 36, 49, 100]


def test_a_stride_that_no_net_has_is_refused() -> None:
    with pytest.raises(InputError, match="stride = 2; choose 32, 16, 8, 4"):
        paper.check_geometry(56, 2)


def test_the_chain_of_the_multi_scale_e() -> None:
    chain = paper.chain(Run("E", JITTER))
    assert [run.name for run in chain] == ["A-256", "E-256", "E-384", "E-256-512"]
    assert [run.is_rescaling for run in chain] == [False, False, True, True]


def test_other_chains() -> None:
    def names(run: Run) -> list[str]:
        return [run.name for run in paper.chain(run)]

    assert names(Run("A", S256)) == ["A-256"]
    assert names(Run("B-5x5", S256)) == ["B-5x5-256"]
    assert names(Run("A-LRN", S256)) == ["A-LRN-256"]  # as deep as A: it starts as A does
    assert names(Run("D", JITTER, fc_only=True)) == ["A-256", "D-256", "D-384", "D-256-512-fc"]


def test_layers_copied_from_a_have_the_same_shape_in_every_deeper_net() -> None:
    a = Architecture("A", 1000).shapes()
    for net in ("B", "C", "D", "E"):
        shapes = Architecture(net, 1000).shapes()
        assert all(shapes[f"{name}.weight"] == a[f"{name}.weight"] for name in paper.COPIED_FROM_A)


def test_rows_need_the_views_that_the_paper_averages() -> None:
    assert [len(row.views) for row in paper.rows(3)] == [1] * 12
    assert [len(row.views) for row in paper.rows(4)] == [3] * 10
    assert [len(row.views) for row in paper.rows(5)] == [3, 3, 6] * 2
    assert [len(row.views) for row in paper.rows(6)] == [21, 6, 6, 12]
    jittered = paper.rows(3)[5]
    assert (jittered.labels["S"], jittered.views[0].q) == ("[256;512]", 384)
    assert {view.run.name for view in paper.rows(6)[0].views if view.run.fc_only} == {"D-256-512-fc"}
    assert not any(view.run.fc_only for row in paper.rows(6)[1:] for view in row.views)


def test_every_run_of_the_tables_comes_after_what_it_starts_from() -> None:
    runs = paper.all_runs()
    assert len(runs) == len(set(runs)) == 14
    assert all(run.parent is None or runs.index(run.parent) < runs.index(run) for run in runs)
