"""A scenario from its file. Whatever is wrong with it is said with its line and field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from pydantic import ValidationError

from fleet.errors import Misuse
from simulators.scenario import Scenario

MAX_BYTES = 1024 * 1024
MAX_NODES = 100_000  # with each alias as many as it stands for
MAX_ERRORS = 20  # that are told


class ScenarioRefused(Misuse):
    default_code = "scenario_refused"


def read_scenario(path: Path) -> Scenario:
    """Raises ScenarioRefused, whose detail has a line for each thing that is wrong."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ScenarioRefused(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise ScenarioRefused(
            f"{path} has more than {MAX_BYTES} bytes: a trace belongs into a file of its own"
        )
    return scenario_of(data, str(path))


def scenario_of(data: bytes, name: str) -> Scenario:
    """`name`: of the file, for people."""
    try:
        loader = yaml.SafeLoader(data)
        root = loader.get_single_node()
        if root is None:
            raise ScenarioRefused(f"{name} is empty")
        _check_tree(root, name)
        content = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}, line {mark.line + 1}" if mark else name
        raise ScenarioRefused(f"{where}: this is no YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ScenarioRefused(f"{name}: this is no YAML: {str(error).splitlines()[0]}") from None
    try:
        return Scenario.model_validate(content)
    except ValidationError as error:
        raise ScenarioRefused("\n".join(_told(error, root, name))) from None


def _check_tree(root: Any, name: str) -> None:
    """Two values of one key are one too many; and an alias of an alias of an alias may be a bomb."""
    sizes: dict[Any, int] = {}

    def size(node: Any, above: tuple[Any, ...]) -> int:
        if node in above:
            raise ScenarioRefused(f"{name}, line {_line(node)}: this contains itself")
        if node not in sizes:
            parts = list(_children(node))
            sizes[node] = 1 + sum(size(part, (*above, node)) for part in parts)
            _check_keys(node, name)
        if sizes[node] > MAX_NODES:
            raise ScenarioRefused(f"{name}, line {_line(node)}: this is too much, aliases included")
        return sizes[node]

    size(root, ())


def _children(node: Any) -> Iterator[Any]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _check_keys(node: Any, name: str) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value != "<<":
            if key.value in seen:
                raise ScenarioRefused(f"{name}, line {_line(key)}: {key.value} is there twice")
            seen.add(key.value)


def _told(error: ValidationError, root: Any, name: str) -> Iterator[str]:
    problems = error.errors(include_url=False)
    for problem in problems[:MAX_ERRORS]:
        line, field = _place(root, problem)
        where = f"{name}, line {line}" + (f", {field}" if field else "")
        yield f"{where}: {_words(problem['type'], problem['msg'])}"
    if len(problems) > MAX_ERRORS:
        yield f"{name}: and {len(problems) - MAX_ERRORS} more"


def _words(kind: str, said: str) -> str:
    if kind == "extra_forbidden":
        return "there is no such field"
    if kind == "missing":
        return "this field is missing"
    return said.removeprefix("Value error, ")


def _place(root: Any, problem: Any) -> tuple[int, str]:
    """Line and field. Among the steps are some that only name which kind of part it was taken for. A field
    that is missing has the line of what it is missing in."""
    node, line, field = root, _line(root), []
    for step in (*problem["loc"], *getattr(problem.get("ctx", {}).get("error"), "steps", ())):
        found = _step(node, step)
        if found is not None:
            key, node = found
            line = _line(key)
            field.append(str(step))
    if problem["type"] == "missing":
        field.append(str(problem["loc"][-1]))
    return line, ".".join(field)


def _step(node: Any, step: str | int) -> tuple[Any, Any] | None:
    """What a line is told of, and what is there."""
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(step)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    return None


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1
