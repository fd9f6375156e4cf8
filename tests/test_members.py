"""Every published member counts exactly as the implementation it was published in."""

import csv
from pathlib import Path

import pytest

import archdsl
from archdsl.lang.formatter import format_source
from archdsl.library import members, published_source

MEMBERS = Path(__file__).parent / "data" / "members.csv"

# Every name a user may write: the file's own, and file_variant.
VARIANTS = {
    "mnv1": ("025", "050", "075"),
    "mnv2": ("035", "050", "075", "130", "140", "150", "200"),
    "mnv3_large": ("035", "050", "075", "125"),
    "mnv3_large_det": (),
    "mnv3_large_min": (),
    "mnv3_small": ("035", "050", "075", "125"),
    "mnv3_small_det": (),
    "mnv3_small_min": (),
    "mnv3_small_reduced": (),
    "mnv4_conv_s": ("035", "050"),
    "mnv4_conv_m": (),
    "mnv4_conv_m_seg": (),
    "mnv4_conv_l": (),
    "mnv4_hybrid_m": ("075",),
    "mnv4_hybrid_m_paper": (),
    "mnv4_hybrid_l": (),
    "mn_edgetpu": ("075", "125", "150", "175"),
    "mn_edgetpu_075_960": (),
    "mn_edgetpu_v2_tiny": (),
    "mn_edgetpu_v2_xs": (),
    "mn_edgetpu_v2_s": (),
    "mn_edgetpu_v2_m": (),
    "mn_edgetpu_v2_l": (),
    "mn_multi_max": ("150",),
    "mn_multi_max_tunas": (),
    "mn_multi_max_seg": (),
    "mn_multi_avg": ("150",),
    "mn_multi_avg_seg": (),
    "mnasnet_a1": ("035", "050", "075", "140"),
    "mnasnet_b1": ("035", "050", "075", "130", "140"),
    "mnasnet_d1": (),
    "mnasnet_d1_320": (),
    "mnasnet_small": (),
    **{f"efficientnet_b{n}": () for n in range(8)},
    **{f"efficientnet_lite{n}": () for n in range(5)},
}
NAMES = [
    name
    for file, variants in VARIANTS.items()
    for name in (file, *(f"{file}_{variant}" for variant in variants))
]


def rows() -> list[dict[str, str]]:
    with MEMBERS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


@pytest.mark.parametrize("row", rows(), ids="{name}-{resolution}-{classes}".format_map)
def test_member_counts_to_the_unit(row: dict[str, str]) -> None:
    size = int(row["resolution"])
    cost = archdsl.load(row["name"], input=(size, size, 3), classes=int(row["classes"])).cost()

    assert cost.params == int(row["params"]), row["reference"]
    assert cost.macs_conv_linear == int(row["macs_conv_linear"]), row["reference"]
    assert cost.macs_attention == int(row["macs_attention"]), row["reference"]
    assert cost.macs == cost.macs_conv_linear + cost.macs_attention


def test_the_classes_change_the_classifier_alone() -> None:
    """Also of the name that two networks bear: it is one of them at whatever number of classes."""
    published, narrow = archdsl.load("mn_edgetpu_075"), archdsl.load("mn_edgetpu_075_960")
    for arch, features, params in ((published, 1280, 2_989_441), (narrow, 960, 2_622_401)):
        background = archdsl.load(arch.name, classes=1001).cost()
        assert background.params == arch.cost().params + features + 1 == params


@pytest.mark.parametrize("name", NAMES)
def test_every_published_name_resolves(name: str) -> None:
    assert archdsl.load(name).cost().params > 0


def test_these_are_all_names_and_each_is_counted() -> None:
    assert {member.name for member in members()} == set(NAMES)
    assert {row["name"] for row in rows()} == set(NAMES)


@pytest.mark.parametrize("file", sorted({member.file for member in members()}))
def test_published_files_are_clean_and_in_canonical_form(file: str) -> None:
    source = published_source(file)
    assert archdsl.check(source) == []
    assert format_source(source) == source.text
