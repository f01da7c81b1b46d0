"""The public names are what ``docs/api.md`` says, cost nothing until they are used, and carry the examples."""

from __future__ import annotations

import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import fedspect

ROOT = Path(__file__).parents[1]


def shape_of(name: str) -> str:
    """A name with its parameters, as the page shows it: no types, and ``=`` for what may be left out."""
    value = getattr(fedspect, name)
    if isinstance(value, type) and issubclass(value, (BaseModel, Exception)):
        return name
    shown, keyword = [], False
    for parameter in inspect.signature(value).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword:
            shown.append("*")
            keyword = True
        shown.append(parameter.name + ("" if parameter.default is parameter.empty else "="))
    return f"{name}({', '.join(shown)})"


def test_the_page_names_every_public_name_with_its_parameters_and_no_other() -> None:
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    shown = re.findall(r"^\| `(.+?)` \|", page, re.MULTILINE)
    assert sorted(shown) == sorted(map(shape_of, fedspect.__all__))


def test_import_fedspect_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'flwr', 'numpy', 'onnx', 'fedsim', 'fedclient', 'fedserver'} & set(sys.modules)"
    path = ":".join(each for each in sys.path if each)
    script = f"import sys; sys.path[:0] = {path!r}.split(':'); import fedspect; print({heavy})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert set(fedspect.__all__) <= set(dir(fedspect))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fedspect.nothing


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_examples_run_one_after_the_other(tmp_path: Path) -> None:
    accuracy = example("train_in_one_place").main(tmp_path / "one", per_class=10, size=96, epochs=4)
    assert accuracy > 0.5  # six classes
    picture = sorted((tmp_path / "one" / "pictures").rglob("*.png"))[0]
    answer = example("export_and_ask").main(tmp_path / "one" / "model", picture, tmp_path / "engine")
    assert answer in {path.name for path in (tmp_path / "one" / "pictures").iterdir()}
    assert example("federate_in_one_process").main(tmp_path / "two", per_class=12, rounds=2) > 0.4
    assert (tmp_path / "two" / "run" / "report.html").is_file()
