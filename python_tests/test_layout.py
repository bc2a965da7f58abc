"""The shape of the house: every operator has all of its parts, and imports point one way."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from focus import ops

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "focus"

_declared = re.search(r"set\(operators ([\w\s]+)\)", (ROOT / "CMakeLists.txt").read_text(encoding="utf-8"))
assert _declared is not None
OPERATORS = _declared[1].split()

PARTS = [
    "csrc/{0}/{0}.h",
    "csrc/{0}/{0}_math.h",
    "csrc/{0}/{0}_cpu.cpp",
    "csrc/{0}/{0}_cuda.cu",
    "csrc/bindings/bind_{0}.cpp",
    "focus/ops/{0}.py",
    "python_tests/test_ops_{0}.py",
    "python_tests/native/exercise_{0}.cpp",
]
# Lists of integers, sorted by torch on CUDA: no arithmetic and no kernel of ours.
ABSENT = {("topology", part) for part in PARTS if re.search(r"_math|_cuda|exercise", part)}


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_has_all_of_its_parts(operator: str) -> None:
    for part in PARTS:
        assert (ROOT / part.format(operator)).is_file() != ((operator, part) in ABSENT), part.format(operator)
    assert f"## {operator}" in (ROOT / "docs" / "ops.md").read_text(encoding="utf-8")


def test_there_are_no_operators_beside_those_in_cmakelists() -> None:
    assert {folder.name for folder in (ROOT / "csrc").iterdir()} == {*OPERATORS, "bindings", "common"}
    modules = {file.stem for file in (SOURCE / "ops").glob("[a-z]*.py")}
    assert modules == {*OPERATORS, "reference"}


def _public(module: ModuleType) -> Iterator[str]:
    for name in ops.__all__:
        if inspect.isfunction(getattr(module, name, None)):
            yield name


def test_every_operator_has_a_twin_with_the_same_arguments() -> None:
    names = list(_public(ops))
    assert names
    for name in names:
        twin = getattr(ops.reference, name)
        assert inspect.signature(twin) == inspect.signature(getattr(ops, name)), name


def test_everything_promised_is_there_and_documented() -> None:
    for name in ops.__all__:
        assert inspect.getdoc(getattr(ops, name)), name


# Who may import whom, from the ground up; a row may name only rows above it. Everyone may use the ground.
GROUND = [
    *("errors", "limits", "_version", "_optional", "parallel", "sealed", "files", "arrays", "wavefront"),
    *("lock", "conform", "isolation", "bounds", "record", "phases"),
]
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "limits": set(),
    "sealed": set(),
    "lock": set(),
    "conform": {"errors"},
    "_version": set(),
    "_optional": {"errors"},
    "parallel": {"errors"},
    "files": set(),
    "arrays": set(),
    "wavefront": set(),
    "isolation": set(),
    "bounds": set(),
    "record": set(),
    "phases": set(),
    "_C": set(),
    "_compiled": {"errors", "_C"},
    "ops": {"_C"},
    "face": {"ops"},
    "nets": {"face"},
    "data": {"face"},
    "losses": {"ops", "face", "nets"},
    "eval": {"face", "nets", "data", "losses"},
    "report": {"ops", "face", "data", "eval"},
    "reconstruction": {"ops", "face", "data", "report"},
    "fit": {"ops", "face", "data", "report", "reconstruction"},
    "train": {"face", "nets", "data", "losses", "eval", "report", "reconstruction", "fit"},
    "reconstructor": {"face", "data", "losses", "eval", "fit", "train", "reconstruction"},
    "__init__": {"fit", "reconstruction", "reconstructor"},
    "experiment": {"face", "data", "losses", "eval", "report", "train"},
    "demo": {"face", "nets", "data", "losses", "eval", "report", "train", "experiment"},
    "cli": {
        *("__init__", "_compiled", "ops", "face", "nets", "data", "eval", "report"),
        *("fit", "train", "reconstruction", "reconstructor", "experiment", "demo"),
    },
    "__main__": {"cli"},
}


def _part(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def _is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _imports(tree: ast.AST) -> Iterator[str]:
    """The parts of focus that a file imports, anywhere in it, but for the types that only mypy sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.stmt) and _is_type_checking(node):
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            yield from _imports(node)
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "focus":
                part = rest.split(".")[0]
                yield part if part in ALLOWED else "__init__"


def test_the_order_of_the_parts_has_no_circle() -> None:
    parts = list(ALLOWED)
    for position, part in enumerate(parts):
        assert ALLOWED[part] <= set(parts[:position]), part


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_imports_point_one_way(path: Path) -> None:
    part = _part(path)
    assert part in ALLOWED, f"{part} is new: give it a place in ALLOWED"
    found = set(_imports(ast.parse(path.read_text(encoding="utf-8"))))
    assert found <= ALLOWED[part] | set(GROUND) | {part}


def test_files_stay_short() -> None:
    folders = ("csrc", "focus", "python_tests", "benchmarks", "examples")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.*")]
    sources = [file for file in files if file.suffix in {".py", ".h", ".cpp", ".cu"}]
    long = {file.name for file in sources if len(file.read_text(encoding="utf-8").splitlines()) >= 500}
    assert not long


def test_nothing_unpickles_and_readers_that_crash_stay_in_a_process_of_their_own() -> None:
    forbidden = re.compile(
        r"(pickle|marshal|shelve|dill|joblib)\.\w*(load|open|Unpickler)\w*|(np|numpy)\.load|eval|exec"
    )
    found = set()
    for path in SOURCE.rglob("*.py"):
        name = path.relative_to(SOURCE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                if forbidden.fullmatch(called) or (called == "torch.load" and keywords.get("weights_only") != "True"):
                    found.add((name, called))
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            found |= {(name, module) for module in modules if re.match(r"h5py|scipy\.io|tables|netCDF4", module)}
    # Processes of one program talk in pickles of their own.
    assert found == {("face/hdf5_process.py", "h5py"), ("parallel.py", "pickle.loads")}
