"""The table of ILSVRC-2012's classes, and what image names say."""

from __future__ import annotations

import hashlib

import pytest

from vggrepro.data import synsets
from vggrepro.errors import InputError

# SHA-256 of the devkit's 1000 synsets (ILSVRC2012_devkit_t12/data/meta.mat), a line of id, WNID and words each
DEVKIT = "fa994f5426f5ae5da5266a3993f09cd6982ce49b701de6b226e7cbecc3e7a7a3"


def test_the_table_is_the_devkits() -> None:
    known = list(synsets.table().values())
    text = "".join(f"{synset.id}\t{synset.wnid}\t{synset.words}\n" for synset in known)
    assert hashlib.sha256(text.encode()).hexdigest() == DEVKIT
    assert known[0] == synsets.Synset(449, "n01440764", "tench, Tinca tinca")
    assert known[499] == synsets.Synset(370, "n03041632", "cleaver, meat cleaver, chopper")
    assert known[998] == synsets.Synset(329, "n13133613", "ear, spike, capitulum")


def test_classes_in_order_of_wnids() -> None:
    table = synsets.table()
    assert len(table) == 1000
    assert list(table) == sorted(table)
    assert all(synsets.WNID.fullmatch(wnid) and wnid == synset.wnid for wnid, synset in table.items())
    assert sorted(synset.id for synset in table.values()) == list(range(1, 1001))
    assert all(synset.words.strip() for synset in table.values())
    assert table["n02119789"] == synsets.Synset(1, "n02119789", "kit fox, Vulpes macrotis")


def test_the_first_images_have_these_devkit_ids() -> None:
    """490, 361, 171, 822 begin the ground truth of 2012."""
    ids = [synset.id for synset in synsets.table().values()]
    assert [ids[label] for label in synsets.FIRST_IMAGES.values()] == [490, 361, 171, 822]


def test_words_and_numbers_of_classes() -> None:
    assert synsets.words(["n01440764", "ant", "n00000000"]) == ("tench, Tinca tinca", "", "")
    assert synsets.words([]) == ()
    wnids = list(synsets.table())
    assert synsets.devkit_ids(reversed(wnids))[-2:] == (450, 449)
    assert synsets.devkit_ids(wnids[:999]) == synsets.devkit_ids([*wnids, "ant"]) == ()


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("ILSVRC2012_val_00000001.JPEG", 1),
        ("ILSVRC2012_val_00050000", 50_000),
        ("ILSVRC2012_val_00000293_n01440764.JPEG", 293),
        ("ILSVRC2012_test_00000001.JPEG", None),
        ("ILSVRC2012_val_1.JPEG", None),
        ("val_00000001.JPEG", None),
        ("n01440764_10026.JPEG", None),
    ],
)
def test_numbers_of_validation_images(name: str, number: int | None) -> None:
    assert synsets.val_number(name) == number


def test_first_images() -> None:
    synsets.check_first_images(synsets.FIRST_IMAGES, "here")
    synsets.check_first_images({4: 809, 5: 12}, "here")
    synsets.check_first_images({}, "here")
    with pytest.raises(InputError, match=r"^prepare: here: ILSVRC2012_val_00000002 has class index 361, not 970; "):
        synsets.check_first_images({1: 65, 2: 361}, "here")


def test_subset() -> None:
    assert synsets.subset(1_281_167, 50_000) == ""
    assert synsets.subset(100, 50_000) == "100 of 1,281,167 training and 50,000 of 50,000 validation images"
