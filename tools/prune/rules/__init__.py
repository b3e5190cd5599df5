"""One rule an operator: which atoms its outputs carry, which it merges, which it keeps."""

from sartor.tools.prune.rules import elementwise, pieces, products, shapes, statistics
from sartor.tools.prune.rules.registry import RULES, Node, UntrackedError

__all__ = ["RULES", "Node", "UntrackedError", "elementwise", "pieces", "products", "shapes", "statistics"]
