"""The models that pylm's training is compared with: GPT-2's block as nanoGPT has it, and Llama of transformers."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Step = Callable[..., None]


@dataclass(frozen=True)
class Shape:
    """What all contenders have in common."""

    n_layers: int
    width: int
    n_heads: int
    vocab_size: int
    context: int
    batch_size: int


class PeerBlock(nn.Module):
    """GPT-2's block as nanoGPT has it: LayerNorm, fused q, k, v, fused attention, a GELU MLP of 4 x width."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.n_heads = shape.n_heads
        self.before_attention, self.before_mlp = (nn.LayerNorm(shape.width, bias=False) for _ in range(2))
        self.qkv = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.out = nn.Linear(shape.width, shape.width, bias=False)
        self.up = nn.Linear(shape.width, 4 * shape.width, bias=False)
        self.down = nn.Linear(4 * shape.width, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        batch, length, width = x.shape
        heads = self.qkv(self.before_attention(x)).view(batch, length, 3, self.n_heads, -1)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.before_mlp(x))))


class Peer(nn.Module):
    """Learned positions, tied head, cross entropy over all logits at once."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.tokens = nn.Embedding(shape.vocab_size, shape.width)
        self.positions = nn.Embedding(shape.context, shape.width)
        self.blocks = nn.ModuleList(PeerBlock(shape) for _ in range(shape.n_layers))
        self.norm = nn.LayerNorm(shape.width, bias=False)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """The mean loss."""
        x = self.tokens(inputs_BT) + self.positions.weight[: inputs_BT.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.tokens.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets_BT.flatten())


def peer_step(
    model: nn.Module,
    loss_of: Callable[[], Tensor],
    device: torch.device,
    dtype: str,
    betas: tuple[float, float] = (0.9, 0.999),
) -> Step:
    """A step as nanoGPT and the examples of transformers take it: autocast, clipping by 1, fused AdamW.

    As in nanoGPT's recipe matrices decay by 0.1 and the rest does not. A step may be told its rate.
    """
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, 1e-3, betas, fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == "float16")
    low = nullcontext() if dtype == "float32" else torch.autocast(device.type, getattr(torch, dtype))

    def step(rate: float = 1e-3) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate
        with low:
            loss = loss_of()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    return step


def llama(shape: Shape) -> nn.Module | None:
    """Llama of transformers with an MLP as large as GPT-2's, or None, and a line, where that is not installed."""
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError:
        print("transformers is not installed: no Llama of theirs")
        return None
    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.width,
        # Three matrices of it are as many numbers as two of 4 x width.
        intermediate_size=-(-8 * shape.width // 3 // 64) * 64,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
        use_cache=False,
    )
    return LlamaForCausalLM(config)


class LlamaLoss(nn.Module):
    """The mean loss of a Llama by torch's cross entropy, as the peer above gives it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """The mean loss; logits in the precision of the products, as transformers leaves them."""
        logits_BTV = self.model(input_ids=inputs_BT).logits
        return F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten())
