"""S2's stacks, batched against layer after layer: `python benches/stacks.py` prints a table.

One stack, float32, processor time of one thread, best of three: forward and backward of two sequences, and the forward
pass alone of one token, as generation has it. "loop" runs the same layers one by one; "batched" runs them as batched
products, but multiplies every matrix in turn; "folded" is what a model does.
"""

import dataclasses
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from pylm.models.build import build_model
from pylm.models.presets import find_preset
from pylm.models.stacks import Stack


def main() -> None:
    """A row for each preset and number of positions."""
    torch.set_num_threads(1)
    lengths = [int(argument) for argument in sys.argv[1:]] or [1, 16, 128, 512]
    print(f"torch {torch.__version__}, one thread; one stack, milliseconds")
    print("preset          T    loop   batched   folded   loop / folded")
    for name in ("stacks-577m", "stacks-454m"):
        config = dataclasses.replace(find_preset(name).model, vocab_size=1, n_stacks=2, dropout=0.0)
        stack = build_model(config).blocks[0]
        assert isinstance(stack, Stack)
        for length in lengths:
            x = torch.randn(1 if length == 1 else 2, length, config.width)
            loop, batched, folded = (milliseconds(f, stack, x) for f in (looped, unfolded, Stack.__call__))
            print(
                f"{name}  {length:5}  {loop:6.0f}    {batched:6.0f}   {folded:6.0f}          {loop / folded:6.1f}"
            )


def looped(stack: Stack, x: Tensor) -> Tensor:
    """The stack as its definition reads: one layer after another."""
    n, width, wide = stack.n_layers, x.shape[2], stack.reduce.n_out
    q, k, v = (part.split(width) for part in stack.attention.qkv.weight.split(n * width))
    q_bias, k_bias, v_bias = (part.split(width) for part in stack.attention.qkv.bias.split(n * width))
    # Taken apart once: a slice in the loop would have a gradient of the whole size for each layer.
    matrices = [part.weight.unbind(0) for part in (stack.out, stack.reduce, stack.up, stack.down)]
    biases = [part.bias.view(n, -1).unbind(0) for part in (stack.out, stack.reduce, stack.up, stack.down)]
    gains, shifts = (part.view(n, -1).unbind(0) for part in (stack.norm.weight, stack.norm.bias))
    outputs = []
    for i in range(n):
        heads = [F.linear(x, q[i], q_bias[i]), F.linear(x, k[i], k_bias[i]), F.linear(x, v[i], v_bias[i])]
        heads = [h.unflatten(-1, (-1, stack.attention.head_size)).transpose(1, 2) for h in heads]
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2)
        out, reduce, up, down = (
            partial(F.linear, weight=w[i], bias=b[i]) for w, b in zip(matrices, biases, strict=True)
        )
        r = reduce(x + out(mixed))
        outputs.append(r + down(F.relu(up(F.layer_norm(r, (wide,), gains[i], shifts[i])))))
    return stack.wide_down(F.relu(stack.wide_up(torch.cat(outputs, dim=-1))))


def unfolded(stack: Stack, x: Tensor) -> Tensor:
    """The batched stack without its folded product."""
    folded = stack._reduced
    stack._reduced = lambda x, mixed: stack.reduce(x + stack.out(mixed))  # type: ignore[method-assign]
    try:
        y: Tensor = stack(x)
    finally:
        stack._reduced = folded  # type: ignore[method-assign]
    return y


def milliseconds(forward: Callable[[Stack, Tensor], Tensor], stack: Stack, x: Tensor) -> float:
    """Best of three, in milliseconds."""
    times = []
    for _ in range(3):
        start = time.process_time()
        with torch.set_grad_enabled(x.shape[1] > 1):
            y = forward(stack, x)
        if y.requires_grad:
            y.sum().backward()
        times.append(1_000 * (time.process_time() - start))
    return min(times)


if __name__ == "__main__":
    main()
