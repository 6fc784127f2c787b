"""Whether a folder already holds the dataset that a command would make."""

from pathlib import Path
from typing import Any

from pylm.dataset_info import DATASET_JSON, DTYPE_BYTES, NPY_HEADER_BYTES, DatasetInfo, file_sha256
from pylm.errors import DataError
from pylm.tokenize.inputs import Inputs
from pylm.tokenize.settings import Settings


def made_before(out: Path, inputs: Inputs, settings: Settings) -> DatasetInfo | None:
    """What stands at `out` when it was made of the same inputs by the same settings, None when nothing stands there.

    Raises DataError that says what differs.
    """
    if not out.exists():
        return None
    check_is_dataset(out)
    info = DatasetInfo.read(out)
    difference = _difference(info, inputs, settings) or _damage(out, info)
    if difference:
        raise DataError(f"{out}: exists, and {difference}: --force makes it anew, --out names another")
    return info


def _difference(info: DatasetInfo, inputs: Inputs, settings: Settings) -> str | None:
    """What was different when the dataset was made; cheap comparisons first."""
    asked, made = settings.as_stored(), info.settings
    by_content = {"val"} | ({"tokenizer"} if inputs.given else set())  # compared by what the files hold
    for name in asked.keys() - by_content:
        if asked[name] != made.get(name):
            option = name.replace("_", "-")
            return f"was made with --{option} {_shown(made.get(name))}, now it is {_shown(asked[name])}"
    if inputs.given and inputs.given.sha256 != info.tokenizer_sha256:
        return f"was made with another tokenizer (--tokenizer {made.get('tokenizer')})"
    if len(info.sources) != len(inputs.files):
        return f"was made of {len(info.sources)} files, now there are {len(inputs.files)}"
    pairs = list(enumerate(zip(info.sources, inputs.files, inputs.names, strict=True)))
    for index, (source, file, name) in pairs:
        size_bytes = file.path.stat().st_size
        if (Path(source.path).name, source.split == "val") != (Path(name).name, inputs.is_val(index)):
            return f"was made of {source.path}, now there is {name}"
        if source.size_bytes != size_bytes:
            return f"was made when {name} had {source.size_bytes:,} bytes, now it has {size_bytes:,}"
    for _, (source, file, name) in pairs:
        if source.sha256 != file_sha256(file.path):
            return f"was made of another content of {name}"
    return None


def _shown(value: Any) -> str:
    return (
        "its default"
        if value is None
        else " ".join(map(str, value))
        if isinstance(value, list)
        else str(value)
    )


def _damage(out: Path, info: DatasetInfo) -> str | None:
    id_bytes = DTYPE_BYTES[info.dtype]
    for name, split in info.splits.items():
        sizes = {file.name: file.n_tokens * id_bytes for file in split.files}
        sizes[f"{name}.idx.npy"] = NPY_HEADER_BYTES + 8 * (split.n_documents + 1)
        for file_name, size_bytes in sizes.items():
            path = out / file_name
            if not path.is_file() or path.stat().st_size != size_bytes:
                return f"is damaged: {file_name}: expected {size_bytes:,} bytes"
    tokenizer = out / "tokenizer.json"
    if not tokenizer.is_file() or file_sha256(tokenizer) != info.tokenizer_sha256:
        return "is damaged: tokenizer.json: expected the one it was made with"
    return None


def check_is_dataset(out: Path) -> None:
    """Nothing but a dataset is ever replaced."""
    if out.exists() and not (out / DATASET_JSON).is_file():
        raise DataError(
            f"{out}: expected a dataset or nothing, found something else: name another place with --out"
        )
