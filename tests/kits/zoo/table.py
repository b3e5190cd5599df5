"""All networks of the zoo by name."""

from __future__ import annotations

from tests.kits.zoo.convolutional import CONVOLUTIONAL
from tests.kits.zoo.dense import DENSE
from tests.kits.zoo.detection import DETECTION
from tests.kits.zoo.entry import Entry
from tests.kits.zoo.generators import GENERATORS
from tests.kits.zoo.graphs import GRAPHS, GraphEntry
from tests.kits.zoo.mobile import MOBILE
from tests.kits.zoo.signals import SIGNALS
from tests.kits.zoo.ties import TIES
from tests.kits.zoo.transformers import TRANSFORMERS

NETWORKS: dict[str, Entry] = {
    **CONVOLUTIONAL,
    **MOBILE,
    **DENSE,
    **DETECTION,
    **TRANSFORMERS,
    **GENERATORS,
    **SIGNALS,
    **TIES,
}
"""Those written in torch."""

ZOO: dict[str, Entry | GraphEntry] = {**NETWORKS, **GRAPHS}
