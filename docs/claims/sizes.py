"""The sizes of networks as papers print them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from claims.page import Claim, Figure, Paper, Text, ours, printed, without_norms

_V2 = Paper("MobileNetV2", "1801.04381")
_V3 = Paper("MobileNetV3", "1905.02244")
_V4 = Paper("MobileNetV4", "2404.10518")


def claims() -> Iterator[Claim]:
    """A table of each paper."""
    yield _claim(
        "sizes_v2",
        "Sizes of MobileNetV2",
        "3.4M parameters, 300M multiplications",
        _V2,
        "Table 4",
        [
            ("mnv1", "4.2M", "575M"),
            ("mnv2", "3.4M", "300M"),
            ("mnv2_140", "6.9M", "585M"),
        ],
        "MobileNetV2's parameters are below the count at width 1 and above it at width 1.4, with "
        "norms and without: tf-slim's README has 3.47M and 6.06M, which is without, and 582M "
        "multiplications at width 1.4. The 300M are cut.",
        lambda text: [ours(f"`{text.member}`, parameters without norms", without_norms(text.arch))],
    )
    yield _claim(
        "sizes_v3",
        "Sizes of MobileNetV3",
        "V3-Large has 5.4M parameters, 219M multiplications",
        _V3,
        "Table 3",
        [
            ("mnv3_large", "5.4M", "219M"),
            ("mnv3_large_075", "4.0M", "155M"),
            ("mnv3_small", "2.5M", "56M"),
            ("mnv3_small_075", "2.0M", "44M"),
            ("mnasnet_a1", "3.9M", "315M"),
            ("mnv2_035", "1.6M", "59.2M"),
        ],
        "V3-Small's are those of the last version; an earlier one, which tf-slim and Keras quote, "
        "has 2.9M and 66M, of a network with a wider tail. The paper's Table 9 has 217M for "
        "V3-Large and 57M for V3-Small, as counted. MnasNet's own paper has 312M for A1, as "
        "counted.",
    )
    yield _claim(
        "sizes_v4",
        "Sizes of MobileNetV4",
        "Conv-M has 9.2M parameters, 1.0G multiplications",
        _V4,
        "Table 6",
        [
            ("mnv4_conv_s", "3.8M", "0.2G"),
            ("mnv4_conv_m", "9.2M", "1.0G"),
            ("mnv4_hybrid_m", "10.5M", "1.2G"),
            ("mnv4_conv_l", "31M", "5.9G"),
            ("mnv4_hybrid_l", "35.9M", "7.2G"),
        ],
        "All but Conv-S are below the count. They are the count without norms, where M is 2^20 "
        "and G is 2^30, as the last rows show; that this is how they were made is a guess.",
        lambda text: [
            ours(
                f"`{text.member}`, parameters without norms / 2^20",
                without_norms(text.arch) / 2**20,
            ),
            ours(f"`{text.member}`, multiplications / 2^30", text.arch.cost().macs / 2**30),
        ],
    )


def _claim(
    name: str,
    title: str,
    headline: str,
    paper: Paper,
    where: str,
    rows: Sequence[tuple[str, str, str]],
    why: str,
    beside: Callable[[Text], list[Figure]] = lambda text: [],
) -> Claim:
    """A table of networks with their parameters and multiplications, and what stands beside."""
    texts = [Text(member) for member, _, _ in rows]
    figures = []
    for text, (member, params, macs) in zip(texts, rows, strict=True):
        cost = text.arch.cost()
        figures += [
            printed(f"`{member}`, parameters", params, cost.params),
            printed(f"`{member}`, multiplications", macs, cost.macs),
        ]
    figures += [figure for text in texts for figure in beside(text)]
    says = "parameters and multiplications of the networks that it compares."
    return Claim(name, title, headline, paper, where, says, texts, figures, why)
