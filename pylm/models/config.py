"""The shape of a model: one flat, frozen dataclass that refuses what cannot be built. No torch here."""

from dataclasses import dataclass

from pylm.errors import ConfigError

FAMILIES = ("transformer", "tiny", "stacks")
NORMS = ("none", "pre", "post")
NORM_KINDS = ("rms", "layer")
POSITIONS = ("rope", "learned", "sinusoid", "none")
ATTENTIONS = ("full", "compressed")
PROJECTIONS = ("mean", "gaussian", "orthogonal")
MLPS = ("swiglu", "silu", "gelu", "gelu_tanh", "relu", "relu2")
INITS = ("normal", "gpt2", "xavier", "torch", "zero_out")
NORM_GAINS = ("ones", "normal", "none")


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides a model's parameters and its function; the default is `llama-138m`.

    Sizes count features unless a comment says otherwise. Every value is a bool, int, float or str, so the
    fields stand in TOML as they are. Raises ConfigError, naming the numbers, for what cannot be built.
    """

    family: str = "transformer"
    vocab_size: int = 32_000  # ids
    max_context: int = 1_024  # tokens the model can attend over; a training window may be shorter
    n_layers: int = 12  # "stacks": layers side by side in one stack
    width: int = 768
    n_heads: int = 12
    n_kv_heads: int = 0  # grouped-query attention (Ainslie et al. 2023); 0: as many as n_heads
    mlp: str = "swiglu"  # silu, gelu (erf), gelu_tanh, relu, relu2 (squared) have one matrix in, swiglu two
    mlp_hidden: int = 0  # 0: 4 x width
    norm: str = "pre"  # where a block normalises: x + f(norm(x)), or norm(x + f(x)), or nowhere
    norm_kind: str = "rms"
    norm_eps: float = 1e-6
    norm_gains: str = (
        "ones"  # how gains start; "normal": N(0, init_std), as S1 does; "none": no gains, no biases
    )
    embedding_norm: bool = False  # normalise what goes into the first block
    embedding_conv: int = 0  # tokens that each feature of the embedding mixes, causally; 0 for none
    positions: str = "rope"
    rope_base: float = 10_000.0
    qk_norm: bool = False  # normalise each head's query and key
    bias: bool = False  # in the linear layers of the blocks
    qkv_bias: bool = True  # with bias: also in q, k and v
    tied: bool = True  # the head is the embedding
    head_bias: bool = False
    dropout: float = 0.0  # on the embedding, attention weights, and each residual branch
    init: str = "normal"
    init_std: float = 0.02

    attention: str = "full"
    proj_ratio: int = 10  # "compressed": positions a chunk
    proj_ratio_min: int = 2  # "compressed": fewest positions a slot stands for
    num_keep_boundary_chunk: int = 2  # "compressed": oldest and newest chunks that stay whole
    projection: str = "mean"  # "compressed": the fixed matrix from positions to slots

    n_stacks: int = 4  # "stacks": one after another
    expansion: int = 2  # "stacks": the last stack is this many times as wide

    def __post_init__(self) -> None:
        _choice("family", self.family, FAMILIES)
        _choice("norm", self.norm, NORMS)
        _choice("norm_kind", self.norm_kind, NORM_KINDS)
        _choice("norm_gains", self.norm_gains, NORM_GAINS)
        _choice("positions", self.positions, POSITIONS)
        _choice("mlp", self.mlp, MLPS)
        _choice("init", self.init, INITS)
        _choice("attention", self.attention, ATTENTIONS)
        _choice("projection", self.projection, PROJECTIONS)
        for name in ("vocab_size", "max_context", "n_layers", "width", "n_heads", "n_stacks", "expansion"):
            _at_least(name, getattr(self, name), 1)
        for name in ("n_kv_heads", "mlp_hidden", "embedding_conv"):
            _at_least(name, getattr(self, name), 0)
        _require(0 <= self.dropout < 1, f"model.dropout is {self.dropout}; expected at least 0 and below 1")
        _require(self.norm_eps > 0, f"model.norm_eps is {self.norm_eps}; expected above 0")
        _require(self.init_std > 0, f"model.init_std is {self.init_std}; expected above 0")
        _require(self.rope_base > 1, f"model.rope_base is {self.rope_base}; expected above 1")
        self._check_heads()
        self._check_compression()
        self._check_family()

    def _check_heads(self) -> None:
        _divides("n_heads", self.n_heads, "width", self.width)
        if self.n_kv_heads:
            _divides("n_kv_heads", self.n_kv_heads, "n_heads", self.n_heads)
        if self.positions == "rope" and self.head_size % 2:
            raise ConfigError(
                f"model.width {self.width} / model.n_heads {self.n_heads} gives heads of {self.head_size} "
                "features; rope rotates pairs: choose an even head size, or other positions"
            )
        if self.positions == "sinusoid" and self.width % 2:
            raise ConfigError(f"model.width is {self.width}; sinusoid positions need an even width")

    def _check_compression(self) -> None:
        _at_least("proj_ratio_min", self.proj_ratio_min, 1)
        _at_least("num_keep_boundary_chunk", self.num_keep_boundary_chunk, 1)
        if self.proj_ratio < self.proj_ratio_min:
            raise ConfigError(
                f"model.proj_ratio {self.proj_ratio} is below model.proj_ratio_min {self.proj_ratio_min}: "
                "a slot stands for proj_ratio_min to proj_ratio positions"
            )
        if self.attention == "compressed" and self.kv_heads != self.n_heads:
            raise ConfigError(
                f"model.attention compressed has no grouped queries: model.n_kv_heads is {self.n_kv_heads}, "
                f"expected 0 or model.n_heads {self.n_heads}"
            )

    def _check_family(self) -> None:
        if self.family == "tiny":
            _require(
                self.norm == "post", f"model.norm is {self.norm!r}; model.family tiny has norm post only"
            )
        if self.family == "stacks":
            _divides("n_layers", self.n_layers, "width", self.width)
            fixed = {
                "norm": "pre",
                "norm_kind": "layer",
                "attention": "full",
                "qk_norm": False,
                "embedding_norm": False,  # it has one in any case
                "mlp_hidden": 0,
                "tied": False,
            }
            for name, value in fixed.items():
                found = getattr(self, name)
                _require(found == value, f"model.{name} is {found!r}; model.family stacks has {value!r} only")
            _require(self.mlp != "swiglu", "model.mlp is 'swiglu'; model.family stacks has no gated MLP")

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.n_kv_heads or self.n_heads

    @property
    def head_size(self) -> int:
        """Features of one head."""
        return self.width // self.n_heads

    @property
    def hidden(self) -> int:
        """Features inside the MLP."""
        return self.mlp_hidden or 4 * self.width


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    _require(value in choices, f"model.{name} is {value!r}; expected one of {', '.join(choices)}")


def _at_least(name: str, value: int, least: int) -> None:
    _require(value >= least, f"model.{name} is {value}; expected at least {least}")


def _divides(part: str, n_parts: int, whole: str, total: int) -> None:
    _require(
        total % n_parts == 0,
        f"model.{part} {n_parts} does not divide model.{whole} {total}: choose a divisor of {total}",
    )
