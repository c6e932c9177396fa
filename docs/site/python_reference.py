"""Makes a Markdown reference of the Python package from its source: every public name with its signature and docstring. Imports nothing of it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PACKAGE = "longembed"


def exported(package: Path) -> dict[str, str]:
    """Public name -> the module that defines it: the client first, modules of functions last."""
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    names = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names[alias.name] = f"{node.module}.{alias.name}" if node.module == PACKAGE else node.module
    first = ["Client", "AsyncClient"]
    return {name: names[name] for name in sorted(names, key=lambda name: (names[name] == f"{PACKAGE}.{name}", name not in first, first.index(name) if name in first else 0))}


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> str:
    """Without `self`; broken where it is long."""
    arguments = node.args
    if arguments.args and arguments.args[0].arg in ("self", "cls"):
        arguments.args = arguments.args[1:]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None and name != "__init__" else ""
    line = f"{'async ' if isinstance(node, ast.AsyncFunctionDef) else ''}{name}({ast.unparse(arguments)}){returns}"
    if len(line) <= 88:
        return line
    parts = re.split(r", (?![^\[\(]*[\]\)])", ast.unparse(arguments))
    return f"{line.partition('(')[0]}(\n    " + ",\n    ".join(parts) + f",\n){returns}"


def prose(docstring: str | None) -> list[str]:
    """Converts a docstring to Markdown. Lines of the form `name: meaning` become list items; the list ends at the next line that
    does not begin with a lower-case letter. Other lines are kept, and indented lines are code."""
    lines: list[str] = []
    in_list = False
    for line in (docstring or "").splitlines():
        match = re.match(r"(`?[a-z]\w*(?:, [a-z]\w*)*`?): (\S.*)", line)
        begins = bool(match) != in_list and (match or not line[:1].islower())
        if begins and lines and lines[-1]:
            lines.append("")
        in_list = bool(match) or in_list and line[:1].islower()
        lines.append(f"* **{match[1].strip('`')}**: {match[2]}" if match else line)
    return [*lines, ""]


def docstring_markdown(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    # A module's docstring is not indented. Cleaning it would remove the indentation of the code in it.
    return prose(ast.get_docstring(node, clean=not isinstance(node, ast.Module)))


def is_public(node: ast.stmt) -> bool:
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_")


def decorators(node: ast.stmt) -> set[str]:
    return {ast.unparse(decorator).partition("(")[0] for decorator in getattr(node, "decorator_list", [])}


def function_markdown(node: ast.FunctionDef | ast.AsyncFunctionDef, level: int, prefix: str = "") -> list[str]:
    heading = f"{'#' * level} `{prefix}{node.name}`"
    if "property" in decorators(node):
        returns = f": `{ast.unparse(node.returns)}`" if node.returns else ""
        return [f"{heading}{returns}", "", *docstring_markdown(node)]
    return [heading, "", "```python", signature(node, node.name), "```", "", *docstring_markdown(node)]


def class_markdown(node: ast.ClassDef) -> list[str]:
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    lines = [f"## `{node.name}`", "", *([f"A `{bases}`.", ""] if bases else []), *docstring_markdown(node)]
    for child in node.body:
        if isinstance(child, ast.FunctionDef) and child.name == "__init__":
            lines += ["```python", signature(child, node.name), "```", ""]
    fields = [f"{ast.unparse(child)}" for child in node.body if isinstance(child, ast.AnnAssign)]
    if fields:
        lines += ["```python", *fields, "```", ""]
    for child in node.body:
        if is_public(child):
            lines += function_markdown(child, 3, f"{node.name}.")
    return lines


def module_markdown(path: Path, name: str) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lines = [f"## module `{name}`", "", *docstring_markdown(tree)]
    for node in tree.body:
        if is_public(node):
            lines += function_markdown(node, 3, f"{path.stem}.")
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            lines += ["#" + line if line.startswith("##") else line for line in class_markdown(node)]
    return lines


def reference(package: Path) -> str:
    """The page of the package in that folder. Raises ValueError where a public name has no docstring or no definition."""
    lines = [f"# The Python package {PACKAGE}", "", *docstring_markdown(ast.parse((package / "__init__.py").read_text(encoding="utf-8")))]
    for name, module in exported(package).items():
        path = package / (module.removeprefix(f"{PACKAGE}.").replace(".", "/") + ".py")
        if module == f"{PACKAGE}.{name}":
            lines += module_markdown(path, module)
            continue
        found = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if getattr(node, "name", "") == name]
        if not found or not ast.get_docstring(found[0]):
            raise ValueError(f"{module}.{name} has no docstring, or is not defined there")
        lines += class_markdown(found[0]) if isinstance(found[0], ast.ClassDef) else function_markdown(found[0], 2)
    return "\n".join(lines)
