"""Imports point down the layers, in both languages, and importing a command loads no torch."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Lowest first. Modules on one line may not import each other; a package stands for all its files.
PYTHON_LAYERS: list[list[str]] = [
    ["errors", "_bpe"],
    ["files", "progress", "published", "allocator", "processor", "kernels"],
    ["models.config", "corpus", "tokenizer", "dataset_info", "folders", "parquet"],
    ["models.presets", "made_up", "dataset"],
    ["config", "tokenize", "tokenizer_stats", "vocabulary_facts"],
    ["models", "world", "parts", "logits_kernel"],
    ["accounting", "logits"],
    ["auto", "batches", "clock", "compiling", "interrupts", "loss", "muon", "precision", "runs", "sampling"],
    ["mixture", "optim", "early_update", "parallel"],
    ["samples"],
    ["checkpoint", "metrics", "feed", "generate", "evaluate", "measure"],
    ["step", "budget"],
    ["reporter"],
    ["train"],
    ["launch"],
    ["prospect"],
    ["cli"],
]

# A module may use the crates' modules above its own line (and its own parts).
RUST_LAYERS: list[list[str]] = [
    ["token", "memory", "processor", "parallel"],
    ["error", "checksum"],
    ["monitor", "kernels"],
    ["pretokenize", "special"],
    ["words", "merge"],
    ["train"],
    ["vocabulary"],
    ["encode"],
    ["reference"],
    ["corpus"],
    ["tokenize"],
    ["python"],
]


def _layer_of(module: str, layers: list[list[str]]) -> tuple[int, str] | None:
    """The number and name of the longest listed prefix of a dotted module name."""
    found = None
    for level, names in enumerate(layers):
        for name in names:
            longer = found is None or len(name) > len(found[1])
            if (module == name or module.startswith(name + ".")) and longer:
                found = (level, name)
    return found


def _python_modules() -> list[tuple[str, Path]]:
    modules = []
    for path in sorted((ROOT / "pylm").rglob("*.py")):
        dotted = ".".join(path.relative_to(ROOT / "pylm").with_suffix("").parts).removesuffix(".__init__")
        if dotted not in {"__init__", "__main__"}:
            modules.append((dotted, path))
    return modules


def _python_imports(path: Path) -> list[str]:
    """Modules of ours named by the import statements of a file, those inside functions included."""
    imports = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imports += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            imports += (
                [f"{base}.{alias.name}" for alias in node.names]
                if base in {"pylm", "pylm.models"}
                else [base]
            )
    return [name.removeprefix("pylm.") for name in imports if name.startswith("pylm.")]


@pytest.mark.parametrize(("module", "path"), _python_modules(), ids=lambda value: str(value))
def test_python_imports_point_down(module: str, path: Path) -> None:
    own = _layer_of(module, PYTHON_LAYERS)
    assert own is not None, f"pylm.{module} has no layer: add it to PYTHON_LAYERS"
    for name in _python_imports(path):
        other = _layer_of(name, PYTHON_LAYERS)
        if other is None:
            continue  # a name of the package itself, such as __version__
        same_package = other[1] == own[1] and module != name
        assert other[0] < own[0] or same_package, (
            f"pylm.{module} imports pylm.{name} from its own layer or above"
        )


@pytest.mark.parametrize(
    "path", sorted((ROOT / "rust_bpe" / "src").rglob("*.rs")), ids=lambda path: path.name
)
def test_rust_uses_point_down(path: Path) -> None:
    own_name = path.relative_to(ROOT / "rust_bpe" / "src").with_suffix("").parts[0]
    if own_name == "lib" or path.name.endswith("tests.rs"):
        return
    own = _layer_of(own_name, RUST_LAYERS)
    assert own is not None, f"{own_name} has no layer: add it to RUST_LAYERS"
    code = path.read_text().split("#[cfg(test)]")[0]
    code = re.sub(r"//.*", "", code)
    used = set(re.findall(r"\bcrate::([a-z_]+)\b", code))
    for group in re.findall(r"\bcrate::\{([^;]*)\};", code):
        used |= set(re.findall(r"(?:^|,)\s*([a-z_]+)", re.sub(r"\{[^{}]*\}", "", group)))
    for name in sorted(used - {own_name}):
        other = _layer_of(name, RUST_LAYERS)
        assert other is not None, f"{path.name} uses crate::{name}, which has no layer"
        assert other[0] < own[0], f"{path.name} uses crate::{name} from its own layer or above"


def test_the_command_line_starts_without_torch() -> None:
    load = "import sys, pylm.cli.main as m; [m.cli.get_command(None, n) for n in m.COMMANDS]"
    code = f"{load}; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
