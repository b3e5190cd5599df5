"""How each ONNX operator is spelled as a tensor program: one row or one short function an operator."""

from sartor.tools.fuse.rules import elementwise as elementwise
from sartor.tools.fuse.rules import movement as movement
from sartor.tools.fuse.rules import norms as norms
from sartor.tools.fuse.rules import reductions as reductions
from sartor.tools.fuse.rules.registry import RULES as RULES
from sartor.tools.fuse.rules.registry import Kind as Kind
from sartor.tools.fuse.rules.registry import Rule as Rule
