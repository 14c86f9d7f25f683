"""Protocols from the command line's words."""

from __future__ import annotations

import pytest

from vggrepro.errors import InputError
from vggrepro.posteriors.protocol import Protocol, parse_qs


def test_test_scales_on_the_command_line() -> None:
    assert parse_qs("256") == (256,)
    assert parse_qs("512, 256,384") == (512, 256, 384)
    assert parse_qs("224:288:32") == (224, 256, 288)
    assert parse_qs("256,256,288") == (256, 288)
    for text in ("", "x", "256,", "224:512", "224:512:0", "512:224:32", "2.5", "1:2:3:4"):
        with pytest.raises(InputError, match="give test scales such as 256,384,512 or FIRST:LAST:STEP"):
            parse_qs(text)


def test_protocols_that_leave_no_map_or_no_crop_are_refused() -> None:
    with pytest.raises(InputError, match="--q 223: a shorter side below 224 leaves no map for the FC layers"):
        Protocol(qs=(256, 223))
    with pytest.raises(InputError, match="--grid 0: give 1 or more crops a side"):
        Protocol(grid=0)
