"""What benchmarks/equality.py found of Keras' and TensorFlow's networks is what our table says.

The networks themselves need TensorFlow; their figures stand in data/tensorflow.csv.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from peer_networks import KERAS_PEERS, TF_MODELS_PEERS, Peer, Settings, as_published, within

RESULTS = Path(__file__).parent / "data" / "tensorflow.csv"
PEERS = {(peer.library, peer.name): peer for peer in (*KERAS_PEERS, *TF_MODELS_PEERS)}


def rows() -> list[dict[str, str]]:
    with RESULTS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def test_every_network_was_compared() -> None:
    assert [(row["library"], row["network"]) for row in rows()] == list(PEERS)


@pytest.mark.parametrize(
    ("peer", "row"),
    [
        pytest.param(PEERS[row["library"], row["network"]], row, id=f"{row['network']}")
        for row in rows()
    ],
)
def test_counts_settings_and_logits(peer: Peer, row: dict[str, str]) -> None:
    cost = as_published(peer).cost()
    assert (row["params"], row["macs"]) == (str(cost.params), str(cost.macs - cost.macs_attention))
    eps, momentum, dropout = (float(row[name]) for name in ("eps", "momentum", "dropout"))
    assert Settings(peer.settings.pad, eps, momentum, dropout) == peer.settings
    assert row["member"] == peer.member
    assert within(row)
