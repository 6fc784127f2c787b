"""What a vocabulary holds: its sizes and rules, its longest tokens, how a token is made."""

import heapq
from dataclasses import asdict, dataclass
from typing import Any

from pylm.errors import DataError
from pylm.tokenizer import Tokenizer


@dataclass(frozen=True)
class TokenFacts:
    """One token: `parts` are the ids that a merge of rank `rank` joins into it, None for what no merge makes."""

    id: int
    token: bytes
    special: bool
    rank: int | None
    parts: tuple[int, int] | None

    @property
    def text(self) -> str:
        """The token as text; what is no UTF-8 escaped."""
        return self.token.decode(errors="backslashreplace")

    def as_json(self) -> dict[str, Any]:
        """Names to values of JSON."""
        return {
            "id": self.id,
            "text": self.text,
            "hex": self.token.hex(),
            "n_bytes": len(self.token),
            "special": self.special,
            "rank": self.rank,
            "parts": self.parts,
        }


@dataclass(frozen=True)
class VocabularyFacts:
    """One vocabulary; `unreached` counts the tokens that merging never makes."""

    vocab_size: int
    dtype: str
    n_tokens: int
    n_merges: int
    alphabet: str
    pattern: str
    special_tokens: dict[str, int]
    end_of_text_id: int | None
    unknown_id: int | None
    ignore_merges: bool
    unreached: int
    sha256: str
    longest: tuple[TokenFacts, ...]

    def as_json(self) -> dict[str, Any]:
        """Names to values of JSON."""
        return asdict(self) | {"longest": [token.as_json() for token in self.longest]}


def vocabulary_facts(tokenizer: Tokenizer, n_longest: int = 10) -> VocabularyFacts:
    """Look at a vocabulary; of equally long tokens those of lower ids are listed."""
    lengths = tokenizer.token_lengths().tolist()
    longest = heapq.nsmallest(
        n_longest, range(len(lengths)), key=lambda token_id: (-lengths[token_id], token_id)
    )
    how_made = _how_made(tokenizer)
    return VocabularyFacts(
        vocab_size=tokenizer.vocab_size,
        dtype=tokenizer.dtype.name,
        n_tokens=tokenizer.n_tokens,
        n_merges=tokenizer.n_merges,
        alphabet=tokenizer.alphabet,
        pattern=tokenizer.pattern,
        special_tokens=tokenizer.special_tokens,
        end_of_text_id=tokenizer.end_of_text_id,
        unknown_id=tokenizer.unknown_id,
        ignore_merges=tokenizer.ignore_merges,
        unreached=len(tokenizer.unreached_ids()),
        sha256=tokenizer.sha256,
        longest=tuple(_facts(tokenizer, token_id, how_made) for token_id in longest if lengths[token_id]),
    )


def token_facts(tokenizer: Tokenizer, tokens: list[int | str]) -> list[TokenFacts]:
    """Look at tokens, by their ids or strings (special ones too). DataError for what is no token."""
    how_made = _how_made(tokenizer)
    return [_facts(tokenizer, _id_of(tokenizer, token), how_made) for token in tokens]


_HowMade = dict[bytes, tuple[int, bytes, bytes]]


def _how_made(tokenizer: Tokenizer) -> _HowMade:
    """The first merge that makes each token: its rank and parts."""
    how_made: _HowMade = {}
    for rank, (left, right) in enumerate(tokenizer.merges):
        how_made.setdefault(left + right, (rank, left, right))
    return how_made


def _facts(tokenizer: Tokenizer, token_id: int, how_made: _HowMade) -> TokenFacts:
    token = tokenizer.token_bytes(token_id)
    if token_id in tokenizer.special_tokens.values():
        return TokenFacts(token_id, token, special=True, rank=None, parts=None)
    if token not in how_made:
        return TokenFacts(token_id, token, special=False, rank=None, parts=None)
    rank, left, right = how_made[token]
    left_id, right_id = tokenizer.token_id(left), tokenizer.token_id(right)
    assert left_id is not None
    assert right_id is not None
    return TokenFacts(token_id, token, special=False, rank=rank, parts=(left_id, right_id))


def _id_of(tokenizer: Tokenizer, token: int | str) -> int:
    if isinstance(token, int):
        return token
    found = tokenizer.special_tokens.get(token, tokenizer.token_id(token))
    if found is None:
        pieces = [
            tokenizer.token_bytes(i).decode(errors="replace")
            for i in tokenizer.encode(token, "text").tolist()
        ]
        raise DataError(f"{token!r} is not one token: it is encoded as {pieces}")
    return found
