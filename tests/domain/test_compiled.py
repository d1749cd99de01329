"""What `make compiled` may compile: mypyc drops what stands beside a base class, without a word."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
COMPILED = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]["include"]


@pytest.mark.parametrize("module", COMPILED)
def test_no_class_of_a_compiled_module_has_options(module: str) -> None:
    tree = ast.parse((ROOT / module).read_text("utf-8"))
    assert [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.keywords] == []
