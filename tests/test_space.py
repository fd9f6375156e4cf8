"""Search spaces: what they hold is what trying every combination finds."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import re
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

import archdsl
from archdsl.lang.diagnostics import ArchError
from archdsl.lang.formatter import format_source
from archdsl.lang.printer import print_block
from archdsl.lang.source import SourceText
from archdsl.lang.spec import Block
from archdsl.limits import raised
from archdsl.roofline.model import Device
from archdsl.search.identity import canonical_hash
from archdsl.search.space import Space, is_space, load_space, parse_space, shipped_spaces
from archdsl.search.tables import BatchCost, Tables

SET = re.compile(r"\{([0-9.,]+)\}")


def file_with(body: str, statements: str = "input 16x16x3") -> str:
    return f"arch net {statements} {body}"


SMALL = {
    "sets": file_with("stem { conv_k{1,3}_s{1,2}_o{8,16} k{3,5}_e{1,2} }"),
    "alternatives": file_with(
        "stem { conv_k3_o8 ( k{3,5}_s{1,2} | conv_k1_o{8,16} | skip ) sep_k{3,5} }"
    ),
    "statements": file_with(
        "stem { conv_k{1,3}_o8 }",
        "input ( 16x16x3 | 8x8x3 | 8x16x1 ) width ( 0.5 | 2 ) act ( relu | hswish )",
    ),
    "declared widths": file_with(
        "stem { conv_k3_o{8,16,24} ( k3_i8 | k3_i16_e{2,3} | k3_o8 ) k{3,5} }"
    ),
    "no depthwise, no stride": file_with("stem { conv_k3_o8 uib_s{0,3}_m{0,3}_st{1,2} }"),
    "small images": file_with("stem { conv_k3_s{1,4}_o8 conv_k3_s{1,5} }", "input 5x5x3"),
    "groups": file_with("stem { conv_k3_o{8,24,32} conv_k1_g{1,8,12,16}_o{24,32} }"),
    "a classifier": file_with(
        "stem { conv_k{1,3}_o8 } head { pool ( skip | dropout_p0.2 ) fc_o{5,10} }"
    ),
    "repeats": file_with("stem { conv_r{1,2,3}_k{1,3}_s{1,2}_o8 }"),
    "one network": file_with("stem { conv_k3_o8 }"),
}


def brute(text: str) -> int:
    """How many texts without errors there are, with every set and alternative tried."""
    choice = re.search(r"\(([^()]*)\)", text)
    if choice is not None:
        options = [part.strip() for part in choice[1].split("|")]
        return sum(brute(text[: choice.start()] + o + text[choice.end() :]) for o in options)
    parts = SET.split(text)
    sets = [part.split(",") for part in parts[1::2]]
    found = 0
    for values in itertools.product(*sets):
        whole = "".join(a + b for a, b in itertools.zip_longest(parts[::2], values, fillvalue=""))
        try:
            archdsl.parse(whole)
        except ArchError:
            continue
        found += 1
    return found


@pytest.mark.parametrize("name", SMALL)
def test_the_count_is_that_of_valid_texts(name: str) -> None:
    space = parse_space(SMALL[name])
    assert space.count == brute(SMALL[name])
    members = list(space)
    assert len(set(members)) == len(members) == space.count
    assert members == sorted(members)
    assert [space.member(number) for number in range(space.count)] == members


@pytest.mark.parametrize("name", SMALL)
def test_members_are_valid_texts_and_are_found_again(name: str) -> None:
    space = parse_space(SMALL[name])
    for vector in space:
        text = space.text_of(vector)
        assert archdsl.parse(text).to_text() == text
        assert format_source(SourceText("net", text)).split() == text.split()
        assert space.encode(text) == vector
        assert vector in space
        assert space.hash_of(vector) == canonical_hash(archdsl.parse(text))
        if len(space.choices):
            assert (*vector[:-1], 99) not in space


@pytest.mark.parametrize("name", SMALL)
def test_neighbours_are_the_members_at_distance_one(name: str) -> None:
    space = parse_space(SMALL[name])
    members = list(space)[:40]
    everyone = set(space)
    for vector in members:
        near = {o for o in everyone if sum(a != b for a, b in zip(o, vector, strict=True)) == 1}
        assert set(space.neighbours(vector)) == near


def random_space(rng: random.Random) -> str:
    """A small space of random blocks, many of whose combinations do not fit."""

    def some(letter: str, values: list[str]) -> str:
        taken = rng.sample(values, rng.choice((1, 1, 2)))
        return letter + (f"{{{','.join(taken)}}}" if len(taken) > 1 else taken[0])

    def block() -> str:
        kind = rng.choice(("conv", "ir", "uib", "skip", "fused"))
        if kind == "skip":
            return "skip"
        parts = [kind, some("o", ["8", "16", "24"])]
        if kind == "uib":
            parts += [some("s", ["0", "3"]), some("m", ["0", "3"]), some("st", ["1", "2"])]
        else:
            parts += [some("k", ["1", "3"]), some("s", ["1", "2", "3"])]
        if rng.random() < 0.3:
            parts.append(rng.choice(("i3", "i8", "i16")))
        if kind == "conv" and rng.random() < 0.3:
            parts.append(some("g", ["1", "3", "8"]))
        return "_".join(parts)

    words = []
    for _ in range(rng.randint(1, 3)):
        blocks = list(dict.fromkeys(block() for _ in range(rng.randint(1, 3))))
        words.append(blocks[0] if len(blocks) == 1 else f"( {' | '.join(blocks)} )")
    size = rng.choice((3, 6, 12))
    return file_with(f"stem {{ {' '.join(words)} }}", f"input {size}x{size}x3")


def test_random_spaces_count_as_trying_does() -> None:
    rng = random.Random(7)
    read, refused = 0, 0
    for _ in range(150):
        text = random_space(rng)
        try:
            space = parse_space(text)
        except ArchError as error:
            refused += 1
            codes = {d.code for d in error.diagnostics}
            # An option that is of no use; or a second one that says what a first one says.
            assert codes <= {"E1001", "E1003", "E0304", "E0203", "E0301", "E0305"}, text
            continue
        read += 1
        assert space.count == brute(text), text
        for column, choice in enumerate(space.choices):
            assert {vector[column] for vector in space} == set(range(len(choice.options)))
    assert read > 40 < refused


@pytest.mark.parametrize("generator", [random.Random(11), np.random.default_rng(11)])
def test_every_member_is_drawn_as_often(generator: object) -> None:
    space = parse_space(SMALL["alternatives"])
    draws = 200 * space.count
    drawn = Counter(space.sample(generator) for _ in range(draws))
    assert len(drawn) == space.count
    statistic = sum((n - 200) ** 2 / 200 for n in drawn.values())
    # chi-square with count - 1 degrees of freedom: mean and deviation of a sum of squares
    degrees = space.count - 1
    assert statistic < degrees + 4 * (2 * degrees) ** 0.5


def test_layers_that_choose_for_themselves() -> None:
    body = "stem {{ conv_k3_o8 {} }} stage c1 {{ conv_k1 }}"
    space = parse_space(file_with(body.format("each_r{1,2,3}_k{3,5}_s2_e{1,2}_o{8,16}")))
    # the layers of a block share its width, and the choices of a missing layer are not counted
    assert space.count == 2 * (4 + 4**2 + 4**3)
    deepest = space.member(space.count - 1)
    assert space.text_of(deepest).split("{")[1].split("}")[0].split() == [
        *("conv_k3_o8", "k5_s22_e2_o16", "k5_e2_o16", "k5_e2_o16")
    ]
    for vector in itertools.islice(space, 0, None, 7):
        assert space.encode(space.text_of(vector)) == vector
        assert set(space.active(vector)) <= set(range(len(vector)))
    # the same layers written with `r` are the same network
    text = space.text_of(space.encode(file_with(body.format("r2_k3_s2_o16"))))
    assert canonical_hash(archdsl.parse(text)) == canonical_hash(
        archdsl.parse(file_with(body.format("r2_k3_s2_o16")))
    )


def test_equal_networks_have_equal_hashes() -> None:
    same = ("r2_k3_o8 skip", "ir_k3_e1_o8_se0 k3", "k3_s1_o8 k3_x8", "k3_o8 k3_x8_noskip")
    hashes = [canonical_hash(archdsl.parse(file_with(f"stem {{ conv_k1_o8 {s} }}"))) for s in same]
    assert hashes[0] == hashes[1] != hashes[3]
    # dropout is nothing at inference: before a block with a residual, and behind the last one
    dropped = "dropout_p0.2 r2_k3_o8 dropout_p0.1"
    assert canonical_hash(archdsl.parse(file_with(f"stem {{ conv_k1_o8 {dropped} }}"))) == hashes[0]
    one = archdsl.parse(file_with("stem { conv_k3_o8 } stage a { sep_k3 }"))
    two = archdsl.parse(
        file_with("stem { conv_k3_o8 dw_k3 conv_k1 }", "input 16x16x3 norm batch eps=1e-5")
    )
    other = archdsl.parse(file_with("stem { conv_k3_o8 sep_k3 }", "input 16x16x3 act hswish"))
    assert canonical_hash(one) == canonical_hash(two) != canonical_hash(other)


def test_a_network_written_otherwise_is_found() -> None:
    space = parse_space(file_with("stem { conv_k3_o8 ( r{1,2}_k{3,5} | skip ) ( k3 | skip ) }"))
    vector = space.encode(file_with("stem { conv_k3_o8 k3 k3 }"))
    assert space.text_of(vector).count("k3") >= 2
    # the first of several vectors of the same network
    assert vector == (0, 0, 0, 0)
    with pytest.raises(ArchError, match="E1005") as caught:
        space.encode(file_with("stem { conv_k3_o8 k3 k7 }"))
    assert caught.value.diagnostics[0].span.text == "k7"  # type: ignore[union-attr]
    with pytest.raises(ArchError, match="images of 8x8x3"):
        space.encode(file_with("stem { conv_k3_o8 }", "input 8x8x3"))


@pytest.mark.parametrize("name", SMALL)
def test_moves_stay_inside_and_keep_what_they_say(name: str) -> None:
    space = parse_space(SMALL[name])
    rng = random.Random(3)
    for _ in range(60):
        one, other = space.sample(rng), space.sample(rng)
        child = space.crossover(one, other, rng)
        assert child in space
        taken = set(space.active(one)) | set(space.active(other))
        for column in set(space.active(child)) & taken:
            assert child[column] in {
                parent[column] for parent in (one, other) if column in space.active(parent)
            }
        mutated = space.mutate(one, rng)
        assert mutated in space
        both = set(space.active(one)) & set(space.active(mutated))
        changed = [column for column in both if one[column] != mutated[column]]
        assert len(changed) <= 1 and (mutated == one) == (not changed)
        if mutated == one:
            assert space.count == 1 or not list(space.neighbours(one))


def test_vectors_of_no_member() -> None:
    space = parse_space(SMALL["alternatives"])
    for wrong in ((), (0,), (9, 0, 0, 0, 0), (-1, 0, 0, 0, 0), (2, 1, 0, 0, 0)):
        assert wrong not in space
        with pytest.raises(ValueError, match="vector"):
            space.text_of(wrong)
    with pytest.raises(IndexError):
        space.member(space.count)


def test_what_excludes_what() -> None:
    space = parse_space(SMALL["declared widths"])
    said = {
        (space.choices[c].options[i], space.choices[d].options[j])
        for (c, i), others in space.excluded().items()
        for d, j in others
    }
    assert ("o24", "k3_i8") in said and ("k3_i8", "o24") in said and ("k3_i8", "o16") in said
    assert not any("k3_o8" in pair for pair in said)
    assert parse_space(SMALL["sets"]).excluded() == {}


def test_the_page_shows_the_file_that_it_links() -> None:
    docs = Path(__file__).parent.parent / "docs"
    example = (docs / "tiny_space.arch").read_text(encoding="utf-8")
    assert f"```text\n{example}```" in (docs / "spaces.md").read_text(encoding="utf-8")


def test_spaces_are_told_from_networks() -> None:
    assert is_space(SMALL["sets"]) and is_space(SMALL["statements"])
    assert not is_space(SMALL["one network"])


def test_formatting_keeps_a_space() -> None:
    text = SMALL["statements"]
    formatted = format_source(SourceText("net", text))
    assert "input  ( 16x16x3 | 8x8x3 | 8x16x1 )\nwidth  ( 0.5 | 2 )" in formatted
    assert format_source(SourceText("net", formatted)) == formatted
    assert list(parse_space(formatted)) == list(parse_space(text))


HOSTILE = {
    "a million options": "stem { "
    + " ".join(["k{1,3,5,7,9}_e{1,2,3,4,5}_o{8,16,24}"] * 2000)
    + " }",
    "a wide block": "stem { "
    + "_".join(f"{letter}{{1,3,5,7,9,11,13}}" for letter in ("k", "e", "o", "r", "s"))
    + " }",
    "deep layers": "stem { each_r{1,1000}_k{3,5}_e{1,2} }",
    "many statements": "act ( relu | hswish ) " * 40 + "stem { k3 }",
    "many shapes": "stem { "
    + " ".join(f"conv_k3_o{{{','.join(map(str, range(8, 1400, 8)))}}}" for _ in range(6))
    + " }",
}


FAULTY = {
    "stem { ( skip | skip ) }": {"E1003"},
    "stem { each }": {"E1004"},
    "stem { each_r{0,3}_k3 }": {"E0207"},
    "stem { each_r_k{3,5} }": {"E0207"},
    "stem { each_r{a,3} }": {"E0102", "E0207", "E0212"},
    "stem { k{3,5}_each_r2_r{2,3} }": {"E0204"},
    "stem { k{3,5}_k{3,5} }": {"E0204"},
    "stem { noskip{1,2} }": {"E0207"},
    "stem { foo_k{3,5} ( conv | bar ) }": {"E0201"},
    "stem { ( k3 | ) }": {"E0102", "E0103"},
    "source ( a | b ) stem { k3 }": {"E1002"},
    "expect ( a | b ) stem { k3 }": {"E1002"},
    "norm ( batch | foo ) stem { k3 }": {"E0403"},
    "input ( 8x8x3 | 9x9x3 ) stem { k3 }": {"E0402"},
    "": {"E0306"},
}


@pytest.mark.parametrize("body", FAULTY)
def test_faulty_spaces_end_in_diagnostics(body: str) -> None:
    with pytest.raises(ArchError) as caught:
        parse_space(file_with(body))
    assert {diagnostic.code for diagnostic in caught.value.diagnostics} == FAULTY[body]
    assert all(diagnostic.span for diagnostic in caught.value.diagnostics)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_spaces_end_in_diagnostics(name: str) -> None:
    started = time.process_time()
    with pytest.raises(ArchError, match="E0110"):
        parse_space(file_with(HOSTILE[name]))
    assert time.process_time() - started < 3


def test_the_limit_of_steps_can_be_raised() -> None:
    widths = ",".join(map(str, range(8, 8 * 131, 8)))
    text = file_with(f"stem {{ conv_k1_o{{{widths}}} conv_k1_o{{{widths}}} }}")
    with pytest.raises(ArchError, match="`steps` is 16,384"):
        parse_space(text)
    with raised(steps=20_000):
        assert parse_space(text).count == 130**2


def test_spaces_with_networks_beyond_a_limit() -> None:
    for blocks in ("r{1,1000}_k3_o8 " * 6, "conv_o{8,65536} conv_o{8,65536}"):
        with pytest.raises(ArchError, match="largest networks"):
            parse_space(file_with(f"stem {{ {blocks} }}"))


# -------------------------------------------------------------------------------- shipped spaces


@pytest.fixture(scope="module", params=shipped_spaces())
def shipped(request: pytest.FixtureRequest) -> Space:
    return load_space(request.param)


def test_shipped_spaces_are_what_they_say(shipped: Space) -> None:
    assert shipped.name in shipped_spaces()
    assert format_source(shipped.source) == shipped.source.text
    rng = random.Random(5)
    for _ in range(5):
        vector = shipped.sample(rng)
        arch = shipped.arch_of(vector)
        assert (
            shipped.hash_of(shipped.encode(arch)) == shipped.hash_of(vector) == canonical_hash(arch)
        )
        assert shipped.mutate(vector, rng) in shipped


WINNERS = {
    "mnasnet_space": ("mnasnet_a1", "mnasnet_b1"),
    "mnv4_fine_l": ("mnv4_conv_l",),
    "mnv4_fine_m": ("mnv4_conv_m",),
    "mnv4_fine_s": ("mnv4_conv_s",),
}
NO_MEMBERS = {
    "mnasnet_space": ("mnv3_large",),
    "tunas_space": ("mnv3_large", "mnasnet_a1", "mn_multi_max_tunas", "mn_multi_avg"),
    "mnv4_coarse": ("mnv4_conv_s", "mnv4_conv_m", "mnv4_conv_l"),
    "proxylessnas_space": ("mnasnet_b1",),
}


def test_published_winners_are_members(shipped: Space) -> None:
    for name in WINNERS.get(shipped.name, ()):
        arch = archdsl.load(name)
        assert shipped.hash_of(shipped.encode(arch)) == canonical_hash(arch)
    for name in NO_MEMBERS.get(shipped.name, ()):
        with pytest.raises(ArchError, match="E1005"):
            shipped.encode(archdsl.load(name))


def test_two_choices_keep_the_multi_hardware_networks_out_of_tunas_space() -> None:
    """They were searched by the same method (arXiv:2008.08178), with ReLU and 960 filters."""
    text = load_space("tunas_space").source.text
    wanted = {"act    hswish": "act    relu", "768,1024}": "768,960,1024}"}
    for number in range(4):
        opened = text
        for place, (before, after) in enumerate(wanted.items()):
            assert opened.count(before) == 1
            opened = opened.replace(before, after) if number >> place & 1 else opened
        space = parse_space(opened)
        average = archdsl.load("mn_multi_avg").to_text()
        # The authors' code has a bias in place of the last norm, as the space has.
        average = average.replace("conv_k1_o1280+", "conv_k1_o1280+_bias_nonorm")
        for arch in (archdsl.load("mn_multi_max_tunas"), archdsl.parse(average)):
            if number == 3:
                assert space.hash_of(space.encode(arch)) == canonical_hash(arch)
                continue
            with pytest.raises(ArchError, match="E1005"):
                space.encode(arch)


# What TuNAS's code says of ProxylessNAS-Mobile (tunas/mobile_model_archive.py): for each layer
# 3 * (ratio 6) + (kernel - 3) / 2, or 6 for none.
PROXYLESS_MOBILE = (1, 0, 6, 6, 2, 0, 1, 1, 5, 1, 1, 1, 4, 1, 1, 1, 5, 5, 2, 2, 5)


def test_sizes_that_are_published(shipped: Space) -> None:
    if shipped.name == "ofa_mnv3":
        # arXiv:1908.09791, section 3.1, times its 25 resolutions
        assert shipped.count == 25 * (9**2 + 9**3 + 9**4) ** 5
    elif shipped.name == "proxylessnas_space":
        # 22 layers: 3 kernels, 2 ratios, none at all in 15 of them
        assert shipped.count == 3 * 6**6 * 7**15
        # the product of all options, which TuNAS counts: roughly 10^21 (README of its code)
        assert round(math.log10(shipped.combinations)) == 21
        widths = [(32, 2), (40, 2), (80, 2), (96, 1), (192, 2), (320, 1)]
        words = ["k3_o16"]
        for place, index in enumerate(PROXYLESS_MOBILE):
            width, stride = widths[place // 4]
            first = place % 4 == 0
            word = f"k{3 + index % 3 * 2}_e{3 + index // 3 * 3}_o{width}"
            words.append("skip" if index == 6 else word + ("_s22" if first and stride == 2 else ""))
        stages = f"stem {{ conv_k3_s22_o32 }} stage {{ {' '.join(words)} }}"
        text = file_with(stages + " head { conv_k1_o1280 pool fc }", "input 224x224x3")
        assert shipped.hash_of(shipped.encode(text)) == canonical_hash(archdsl.parse(text))
    elif shipped.name == "tunas_space":
        assert shipped.count == (2 * 4 * 4) * 36**5 * 37**15 * (4 * 6 * 7**3) * 7**2
        assert round(math.log10(shipped.combinations)) == 43
    elif shipped.name == "mnv4_fine_s":
        assert shipped.count == (8 * 4 * (9 * 4) ** 5) ** 2
    elif shipped.name == "mnv4_fine_m":
        assert shipped.count == (8 * 3) ** 3 * (9 * 3) ** (1 + 7 + 10)
    elif shipped.name == "mnv4_fine_l":
        assert shipped.count == (8 * 9) * (8 * 9**10) * (8 * 9**12)


# ------------------------------------------------------------------------------ costs of batches

FIGURES = [field.name for field in dataclasses.fields(BatchCost) if field.name != "latency_us"]
DEVICES = ("pixel6-cpu-int8", "pixel6-cpu-int8-fitted", "rpi4-stream-fp32", "coral-edgetpu-int8")


def test_batches_cost_what_the_compiler_says(shipped: Space) -> None:
    """300 members of each space; a third of them are read from their texts here."""
    tables = Tables(shipped)
    rng = random.Random(13)
    vectors = [shipped.sample(rng) for _ in range(300)]
    costs = tables.cost(vectors)
    devices = [archdsl.load_device(name) for name in DEVICES]
    times = [tables.cost(vectors, devices=[device]).latency_us[device.name] for device in devices]
    for row, vector in enumerate(vectors):
        read = archdsl.parse(shipped.text_of(vector)) if row % 3 == 0 else None
        arch = read or shipped.arch_of(vector)
        cost = arch.cost()
        assert {name: getattr(costs, name)[row] for name in (*FIGURES, "macs")} == {
            name: getattr(cost, name) for name in (*FIGURES, "macs")
        }
        for device, microseconds in zip(devices, times, strict=True):
            # the same sums, added in another order
            assert microseconds[row] == pytest.approx(arch.latency(device).us, rel=1e-12)


def test_lists_cost_what_vectors_do(shipped: Space) -> None:
    """Lists of block strings through a `Coster`, 100 of each space, and a fifth of their texts."""
    rng = random.Random(17)
    vectors = [shipped.sample(rng) for _ in range(100)]
    costs = Tables(shipped).cost(vectors)
    costers: dict[object, archdsl.Coster] = {}
    for row, vector in enumerate(vectors):
        spec = shipped.spec_of(vector)
        # What all networks of a coster have in common.
        key = (spec.attributes, print_blocks(spec.stem), print_blocks(spec.head))
        if key not in costers:
            costers[key] = archdsl.Coster(shipped.arch_of(vector))
        cost = costers[key]([text for stage in spec.stages for text in print_blocks(stage.blocks)])
        if row % 5 == 0:
            assert cost == archdsl.parse(shipped.text_of(vector)).cost()
        for name in (*FIGURES, "macs"):
            assert getattr(costs, name)[row] == getattr(cost, name)


def print_blocks(blocks: Iterable[Block]) -> tuple[str, ...]:
    return tuple(map(print_block, blocks))


@pytest.mark.parametrize("name", SMALL)
def test_tables_know_members(name: str) -> None:
    space = parse_space(SMALL[name])
    tables = Tables(space)
    limits = [range(len(choice.options) + 1) for choice in space.choices]
    rows = list(itertools.islice(itertools.product(*limits), 3000)) or [()]
    rows = np.array(rows, np.int64).reshape(len(rows), len(space.choices))
    assert tables.valid(rows).tolist() == [tuple(row) in space for row in rows.tolist()]
    members = np.array(list(space), np.int64).reshape(space.count, len(space.choices))
    costs = tables.cost(members, dtype="int8", batch=3)
    for row, vector in enumerate(space):
        cost = space.arch_of(vector).cost(dtype="int8", batch=3)
        assert [getattr(costs, n)[row] for n in FIGURES] == [getattr(cost, n) for n in FIGURES]
    assert len(tables.cost(members[:0])) == 0


def test_batches_that_cannot_be_costed() -> None:
    space = parse_space(SMALL["alternatives"])
    tables = Tables(space)
    member = space.member(0)
    ridge = Device.of_ridge(10.0)
    for wrong, message in (
        ({"vectors": [member, [9] * len(member)]}, "row 1: no member"),
        ({"vectors": [member[:-1]]}, "rows of 5"),
        ({"vectors": [[0.5] * len(member)]}, "whole numbers"),
        ({"vectors": [member], "dtype": "float8"}, "float8"),
        ({"vectors": [member], "batch": 0}, "batch 0"),
        ({"vectors": [member], "devices": [ridge]}, "no times"),
    ):
        with pytest.raises(ValueError, match=message):
            tables.cost(**wrong)  # type: ignore[arg-type]


def test_a_network_with_a_proof_is_told_that_it_is_no_space() -> None:
    with pytest.raises(ArchError) as caught:
        parse_space((Path(__file__).parents[1] / "docs" / "pico.arch").read_text(encoding="utf-8"))
    (found,) = caught.value.diagnostics
    assert (found.code, found.message) == (
        "E1002",
        "`expect` speaks of one network, and this text is one",
    )
    assert "a search space has choices" in (found.help or "")
