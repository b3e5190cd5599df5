"""Networks that use a weight more than once, or have several inputs and outputs."""

from __future__ import annotations

import torch
from tests.kits.zoo.entry import CLASSES, IMAGE, Entry, operators
from tests.kits.zoo.parts import conv_norm, mean_head
from torch import Tensor, nn


class RecurrentConvolution(nn.Module):
    """Apply one convolution to its own output, with the input added each time (Liang and Hu 2015, section 3.1)."""

    def __init__(self, inputs: int, channels: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.enter = nn.Conv2d(inputs, channels, 3, padding=1)
        self.again = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the state after the last step (B, channels, H, W)."""
        entered = self.enter(image_BCHW)
        state = torch.relu(entered)
        for _ in range(self.steps):
            state = torch.relu(entered + 0.5 * self.again(state))
        return state


def recurrent() -> nn.Module:
    """Return a recurrent convolutional network (same, figure 3)."""
    first, second = RecurrentConvolution(8, 12, 3), RecurrentConvolution(12, 16, 2)
    pool = nn.MaxPool2d(2)
    return nn.Sequential(conv_norm(3, 8, 5, 2), first, pool, second, mean_head(16, CLASSES))


class Autoencoder(nn.Module):
    """Encode by a matrix and decode by its transpose (Vincent et al. 2010, section 2.2)."""

    def __init__(self, visible: int, hidden: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(visible, 24), nn.Linear(24, visible)
        self.weight = nn.Parameter(torch.randn(24, hidden) / 24**0.5)
        self.bias, self.back = (nn.Parameter(0.2 * torch.randn(size)) for size in (hidden, 24))

    def forward(self, visible_BC: Tensor) -> Tensor:
        """Return the decoded vector (B, C)."""
        code = torch.sigmoid(torch.addmm(self.bias, torch.relu(self.enter(visible_BC)), self.weight))
        return self.leave(torch.relu(nn.functional.linear(code, self.weight, self.back)))


def cosine(left_BC: Tensor, right_BC: Tensor) -> Tensor:
    """Return the cosines (B, 1) of the angles between vectors."""
    norms = (left_BC * left_BC).sum(1, keepdim=True) * (right_BC * right_BC).sum(1, keepdim=True)
    return (left_BC * right_BC).sum(1, keepdim=True) / torch.sqrt(norms)


class Siamese(nn.Module):
    """Compare two images by one tower (Bromley et al. 1993, section 4) and classify them with facts beside."""

    def __init__(self, width: int, facts: int) -> None:
        super().__init__()
        self.tower = nn.Sequential(conv_norm(3, 8, 3, 2), conv_norm(8, 16, 3, 2), mean_head(16, width))
        self.facts = nn.Linear(facts, width)
        self.head = nn.Sequential(nn.Linear(2 * width, 24), nn.ReLU(), nn.Linear(24, CLASSES))

    def forward(self, left_BCHW: Tensor, right_BCHW: Tensor, facts_BF: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cosine between the images (B, 1) and logits (B, classes)."""
        left, right = self.tower(left_BCHW), self.tower(right_BCHW)
        joined = torch.cat(((left - right).abs(), torch.relu(self.facts(facts_BF))), 1)
        return cosine(left, right), self.head(joined)


TIES = {
    "recurrent": Entry(recurrent, operators("Conv Add Relu"), opset=18),
    "autoencoder": Entry(
        lambda: Autoencoder(32, 16),
        operators("Gemm Sigmoid Relu"),
        opset=13,
        inputs={"visible": (1, 32)},
        outputs=("decoded",),
    ),
    "siamese": Entry(
        lambda: Siamese(16, 6),
        operators("Conv Gemm Sub Abs Concat Mul ReduceSum Sqrt Div"),
        opset=18,
        inputs={"left": IMAGE, "right": IMAGE, "facts": (1, 6)},
        outputs=("cosine", "logits"),
    ),
}
