"""DINO's step as it is specified: float32, full attention, a log-softmax a pair, loops over tensors.

The yardstick of `step.py`: same networks, same arithmetic, no attention paid to speed. `carry` takes weights
over from our networks, so that both can be shown to compute the same.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, linear, log_softmax, normalize, softmax

from raymask.positions import resample

# b: images   t: tokens   d: width   k: prototypes


class Block(nn.Module):
    """Pre-norm attention and MLP, with drop path by fresh draws."""

    def __init__(self, dim: int, heads: int, drop_path: float) -> None:
        super().__init__()
        self.heads, self.drop_path = heads, drop_path
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        x = x + self._drop(self._attend(self.norm1(x)))
        return x + self._drop(self.fc2(gelu(self.fc1(self.norm2(x)))))

    def _attend(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        attention = ((q @ k.transpose(-2, -1)) * (d // self.heads) ** -0.5).softmax(dim=-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(b, t, d))

    def _drop(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return x
        keep = 1 - self.drop_path
        return x / keep * torch.floor(keep + torch.rand(len(x), 1, 1, dtype=x.dtype, device=x.device))


class NaiveNetwork(nn.Module):
    """Backbone and head over a list of crops: one pass a resolution, one head pass."""

    def __init__(
        self, *, size: int, patch: int, dim: int, depth: int, heads: int, drop_path: float, head: dict
    ):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, patch, patch)
        self.native = (size // patch, size // patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (size // patch) ** 2, dim))
        rates = torch.linspace(0, drop_path, depth).tolist()
        self.blocks = nn.ModuleList(Block(dim, heads, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        hidden, bottleneck = head["hidden_dim"], head["bottleneck_dim"]
        layers = [nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden, bottleneck))
        self.gain = nn.Parameter(torch.ones(head["out_dim"], 1), requires_grad=False)
        self.direction = nn.Parameter(torch.randn(head["out_dim"], bottleneck))

    def forward(self, groups: list[list[Tensor]]) -> Float[Tensor, "rows k"]:
        cls = torch.cat([self._backbone(torch.cat(crops)) for crops in groups])
        weight = self.direction * (self.gain / self.direction.norm(dim=1, keepdim=True))
        return linear(normalize(self.mlp(cls), dim=-1), weight)

    def _backbone(self, images: Tensor) -> Tensor:
        x = self.patch_embed(images)
        grid = tuple(x.shape[-2:])
        positions = resample(self.pos_embed[0, 1:], self.native, grid)
        x = x.flatten(2).transpose(1, 2) + positions
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        x = torch.cat([cls, x], dim=1)
        for block in self.blocks:
            x = block(x)
        return layer_norm(x, x.shape[-1:], self.norm.weight, self.norm.bias, 1e-6)[:, 0]


def carry(network: nn.Module, into: NaiveNetwork) -> None:
    """Loads the weights of one of our networks, strictly."""
    inner = {"backbone.vit.": "", "head.": "", "last_layer.": "", "patch_embed.proj": "patch_embed"}
    inner |= {"attn.": "", "mlp.fc": "fc"}
    state = {}
    for name, tensor in network.state_dict().items():
        renamed = name
        for old, new in inner.items():
            renamed = renamed.replace(old, new)
        state[renamed] = tensor
    into.load_state_dict(state)


def naive_loss(student: Tensor, teacher: Tensor, center: Tensor, *, crops: int, temperature: float) -> Tensor:
    """One log-softmax a pair."""
    views = (student / 0.1).chunk(crops)
    targets = softmax((teacher - center) / temperature, dim=-1).detach().chunk(2)
    total, pairs = 0, 0
    for a, target in enumerate(targets):
        for b, view in enumerate(views):
            if a != b:
                total = total + torch.sum(-target * log_softmax(view, dim=-1), dim=-1).mean()
                pairs += 1
    return total / pairs


def naive_clip(network: nn.Module, largest: float) -> list[float]:
    """Each tensor by itself, read back by the host."""
    norms = []
    for parameter in network.parameters():
        if parameter.grad is not None:
            norm = parameter.grad.norm(2)
            norms.append(norm.item())
            if (coefficient := largest / (norm + 1e-6)) < 1:
                parameter.grad.mul_(coefficient)
    return norms


@torch.no_grad()
def naive_ema(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Tensor by tensor."""
    for mine, other in zip(teacher.parameters(), student.parameters()):
        mine.mul_(momentum).add_((1 - momentum) * other)
