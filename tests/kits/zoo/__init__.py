"""Small networks with real structure and seeded random weights, and their ONNX exports.

Each is a small variant of a published architecture that still has its structure. `make` gives the torch module,
`exported` its ONNX bytes: with batch normalisation folded or kept, with a batch of one or of any size, by torch's
exporter on torch.export from opset 18 on and by that on TorchScript before. `sample` draws inputs for the module,
`feed` the same for a session.

What an operator looks like depends on the exporter and the opset. Global pooling is GlobalAveragePool from TorchScript
and ReduceMean from torch.export. LayerNormalization begins with opset 17, HardSwish with 14, GroupNormalization with 21
and are taken apart before. A named batch gives Reshape a computed shape, from TorchScript in a dozen nodes.
"""

from __future__ import annotations

from tests.kits.zoo.entry import Entry, make, sample
from tests.kits.zoo.export import exported, feed
from tests.kits.zoo.graphs import GraphEntry
from tests.kits.zoo.table import NETWORKS, ZOO

__all__ = ["NETWORKS", "ZOO", "Entry", "GraphEntry", "exported", "feed", "make", "sample"]
