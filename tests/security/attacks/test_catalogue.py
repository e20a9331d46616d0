"""No attack goes untried: every number of the catalogue stands on a test of this folder."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.security.attacks.catalogue import CASES

HERE = Path(__file__).parent


def marked(path: Path) -> Iterator[int]:
    """Yield the numbers in `pytest.mark.attack(…)` of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.attack":
            yield from (ast.literal_eval(argument) for argument in node.args)


def test_every_attack_of_the_catalogue_is_tried() -> None:
    tried = {number for path in HERE.glob("test_*.py") for number in marked(path)}

    assert tried == CASES.keys()
