"""S4's own accounting of activations, for models that store the T x T attention weights; ours do not."""

GIB = 1 << 30


def course_activation_bytes(
    n_layers: int, width: int, n_heads: int, vocab_size: int, context: int, swiglu: bool = False
) -> int:
    """Return the bytes of one sample's float32 activations, by the course's list of what is kept.

    Of each layer: 16 T d numbers (two norms; q, k, v; weighted values and their projection; the MLP's 4 d twice
    and its output) and the scores before and after the softmax, 2 h T^2. Besides, the final norm, T d, and the
    logits twice, 2 T V. `swiglu` adds what its list leaves out: the gate, and the product with it, 8 T d.
    """
    of_layer = (24 if swiglu else 16) * context * width + 2 * n_heads * context**2
    return 4 * (n_layers * of_layer + context * width + 2 * context * vocab_size)


def course_state_bytes(n_parameters: int) -> int:
    """Return the bytes of float32 weights, gradients and AdamW's two moments."""
    return 16 * n_parameters
