"""What the operators' docstrings and the stub of the compiled module say: run, and compared with what is there."""

from __future__ import annotations

import ast
import contextlib
import doctest
import inspect
import io
import re
from pathlib import Path
from typing import get_args

import pytest
import torch

import focus
from focus import _C, ops
from focus.ops.rasterize import Cull

SOURCE = Path(focus.__file__).parent
PUBLIC = [name for name in ops.__all__ if name not in ("Fragments", "reference")]


@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_of_every_operator_prints_what_it_says(name: str) -> None:
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(getattr(ops, name)) or "")
    assert examples, f"focus.ops.{name} has no example"
    test = doctest.DocTest(examples, {"torch": torch, "ops": ops}, name, None, None, None)
    report = io.StringIO()
    with contextlib.redirect_stdout(report):
        failed, _ = doctest.DocTestRunner().run(test)
    assert not failed, report.getvalue()


@pytest.mark.parametrize("name", ["rasterize", "render"])
def test_the_docstrings_name_every_way_of_culling(name: str) -> None:
    text = inspect.getdoc(getattr(ops, name)) or ""
    assert all(f'"{value}"' in text for value in get_args(Cull))


def test_dir_is_what_is_promised() -> None:
    assert set(ops.__all__) <= set(dir(ops))
    public = {name for name, value in vars(ops).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert public | {"reference"} == set(ops.__all__)


def test_the_package_says_that_it_is_typed() -> None:
    assert (SOURCE / "py.typed").is_file()


STUB = ast.parse((Path(__file__).resolve().parents[1] / "focus" / "_C.pyi").read_text(encoding="utf-8"))
FUNCTIONS = {node.name: node for node in STUB.body if isinstance(node, ast.FunctionDef)}
CONSTANTS = {
    node.target.id: ast.unparse(node.annotation)
    for node in STUB.body
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
}


def test_the_stub_names_what_the_module_has() -> None:
    assert set(FUNCTIONS) | set(CONSTANTS) == {name for name in dir(_C) if not name.startswith("__")}
    for name, annotation in CONSTANTS.items():
        kinds = {"int": int, "str": str, "str | None": (str, type(None)), "tuple[int, int]": tuple}
        assert isinstance(getattr(_C, name), kinds[annotation]), name


def _kind(text: str) -> str:
    """Of an argument in the signatures that pybind11 writes, which differ from version to version."""
    if text.startswith("typing.SupportsInt"):
        return "int"
    return "float" if text.startswith("typing.SupportsFloat") else text


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_stub_has_the_arguments_of_the_module(name: str) -> None:
    signature = re.match(rf"{name}\((.*)\) -> (\w+)", getattr(_C, name).__doc__)
    assert signature
    real = [_kind(part.split(": ")[1]) for part in signature[1].split(", ")] if signature[1] else []
    node = FUNCTIONS[name]
    arguments = [*node.args.posonlyargs, *node.args.args]
    assert [ast.unparse(argument.annotation) for argument in arguments if argument.annotation] == real
    assert node.returns is not None
    assert ast.unparse(node.returns) == signature[2]


def test_the_stub_has_the_names_of_the_source() -> None:
    """pybind11 does not keep them: they are those of the functions in csrc/bindings."""
    folder = Path(__file__).resolve().parents[1] / "csrc" / "bindings"
    found = {}
    for path in folder.glob("bind_*.cpp"):
        for name, text in re.findall(
            r'module\.def\(\s*"(\w+)",\s*\[\]\((.*?)\)', path.read_text(encoding="utf-8"), re.S
        ):
            found[name] = [argument.split()[-1] for argument in text.split(",")]
    stub = {name: [argument.arg for argument in node.args.posonlyargs] for name, node in FUNCTIONS.items()}
    others = {"set_avx2", "uses_avx2", "set_avx512", "uses_avx512", "cuda_driver"}
    assert found == {name: names for name, names in stub.items() if name not in others}
