"""The house: which room may know which, what an import costs, what is public. With proof that each check can fail."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "keras_initaudit"

# Room -> (rooms that it may import, packages from outside the standard library that it may import).
ROOMS = {
    "records": ((), ()),
    "flow": (("records",), ()),
    "trunk": (("records", "flow"), ()),
    "numerals": ((), ()),
    "names": ((), ()),
    "progress": ((), ()),
    "schedules": ((), ()),
    "theory": ((), ("keras", "numpy")),
    "layers": ((), ("keras",)),
    "initializers": (("theory",), ("keras", "numpy")),
    "optimizers": ((), ("keras",)),
    "observe": (("records", "layers", "theory"), ("keras", "numpy")),
    "diagnosis": (("records", "flow", "numerals"), ()),
    "remedies": (
        ("records", "flow", "progress", "theory", "layers", "initializers", "optimizers", "observe", "diagnosis"),
        ("keras", "numpy"),
    ),
    "report": (("records", "flow", "trunk", "numerals", "names"), ()),
    "tensorboard": (
        ("records", "flow", "trunk", "names", "diagnosis", "report"),
        ("tensorboard", "werkzeug", "numpy", "google"),
    ),
    "auditing": (("records", "progress", "observe", "diagnosis", "remedies", "report"), ("keras",)),
    "coordinates": (("progress", "layers", "observe", "remedies", "report", "tensorboard"), ("keras", "numpy")),
    "callback": (
        ("records", "schedules", "progress", "auditing", "observe", "diagnosis", "report", "tensorboard"),
        ("keras",),
    ),
    "cli": (
        ("records", "theory", "initializers", "auditing", "diagnosis", "remedies", "report", "tensorboard"),
        ("keras", "numpy"),
    ),
    "__main__": (("cli",), ()),
    # Its public names are imported when they are used: what an import of the package really loads is tested below.
    "__init__": ((), ("wrapt",)),
}
# Module or package -> what it alone may import beyond its room's: the engine of each backend.
ALONE = {
    "keras_initaudit.observe.engines.tensorflow": ("tensorflow",),
    "keras_initaudit.observe.engines.jax": ("jax",),
    "keras_initaudit.observe.engines.torch": ("torch",),
}


def imports(source, module):
    """The dotted names that a module imports, relative ones resolved; `module` is its dotted name."""
    package = module.split(".")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: -node.level] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            # `from . import x` imports the module x, if there is one.
            yield from (f"{stem}.{alias.name}" for alias in node.names) if not node.module else [stem]


def violations(source, module):
    room = module.split(".")[1]
    rooms, outside = ROOMS[room]
    outside = (
        *outside,
        *(package for alone, found in ALONE.items() if f"{module}.".startswith(f"{alone}.") for package in found),
    )
    for name in imports(source, module):
        top, *rest = name.split(".")
        if top == "keras_initaudit":
            if not rest:
                yield f"{module} imports the package root"
            elif rest[0] not in (room, "__version__", *rooms):
                yield f"{module} imports the room {rest[0]}"
        elif top not in outside and top not in sys.stdlib_module_names:
            yield f"{module} imports {top}"


MODULES = {
    ".".join(["keras_initaudit", *path.relative_to(PACKAGE).with_suffix("").parts]): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_stands_below_it(module):
    assert not list(violations(MODULES[module].read_text(), module))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("keras_initaudit.records", "import numpy"),
        ("keras_initaudit.observe.probe", "def f():\n    import tensorflow as tf"),
        ("keras_initaudit.observe.engines.undocumented", "import tensorflow as tf"),
        ("keras_initaudit.observe.engines.tensorflow_too", "import tensorflow as tf"),
        ("keras_initaudit.observe.engines.tensorflow.step", "import jax"),
        ("keras_initaudit.observe.engines.jax.step", "import tensorflow as tf"),
        ("keras_initaudit.observe.engines.undocumented", "import torch"),
        ("keras_initaudit.observe.engines.torch.step", "import tensorflow as tf"),
        ("keras_initaudit.diagnosis.signal", "def f():\n    import keras"),
        ("keras_initaudit.report", "from .diagnosis import Thresholds"),
        ("keras_initaudit.initializers.base", "from ..probe import Probe"),
        ("keras_initaudit.tensorboard.plugin", "from ..initializers import HeNormal"),
        ("keras_initaudit.observe.measures", "from .. import diagnosis"),
        ("keras_initaudit.theory.gains", "import keras_initaudit"),
    ],
)
def test_the_check_can_fail(module, source):
    assert list(violations(source, module))


def test_no_room_is_a_drawer_for_everything():
    assert not {"utils", "helpers", "common", "misc"} & {path.stem for path in MODULES.values()}


def loaded_after(statement):
    program = f"import sys\n{statement}\nprint(*sorted(m for m in ('keras', 'tensorflow') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


def test_what_tensorboard_imports_loads_neither_keras_nor_tensorflow():
    light = [
        "records",
        "diagnosis",
        "report",
        "tensorboard.metadata",
        "tensorboard.summary",
        "tensorboard.plugin",
        "cli",
    ]
    assert loaded_after("import keras_initaudit, " + ", ".join(f"keras_initaudit.{name}" for name in light)) == []


def test_the_proof_of_lightness_can_fail():
    assert "keras" in loaded_after("from keras_initaudit import HeNormal")


@pytest.mark.parametrize("name", ["gain", "fans"])
def test_a_public_name_may_be_the_first_import_of_a_program(name):
    assert "keras" in loaded_after(f"from keras_initaudit import {name}")


def test_importing_starts_no_tensorflow_and_draws_no_seed():
    program = """
import random
import keras
before = random.getstate()
import keras_initaudit
from keras_initaudit import *
from tensorflow.python.eager import context
assert random.getstate() == before
assert not context.context()._initialized
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("order", ["import keras\nimport keras_initaudit", "import keras_initaudit\nimport keras"])
def test_a_saved_model_finds_the_initializers_in_either_import_order(order, tmp_path):
    import keras

    from keras_initaudit import HeNormal

    dense = keras.layers.Dense(2, kernel_initializer=HeNormal(seed=1))
    keras.Sequential([keras.Input((3,)), dense]).save(tmp_path / "m.keras")
    program = f"""
{order}
model = keras.saving.load_model({str(tmp_path / "m.keras")!r})
print(type(model.layers[0].kernel_initializer).__module__, type(model.layers[0].kernel_initializer).__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    module, name = done.stdout.split()
    assert module.startswith("keras_initaudit.")
    assert name == "HeNormal"


def stub(public):
    """The text of `__init__.pyi`: the names of the table as type checkers take them, each under its own name."""
    lines = [f"from .{module} import {name} as {name}" for module, names in public.items() for name in names]
    head = "# Made from the table in __init__.py: REWRITE_STUB=1 pytest tests/test_architecture.py"
    return "\n".join([head, *lines, "", "__version__: str", "__all__: list[str]", ""])


def test_type_checkers_read_the_names_of_the_table():
    import keras_initaudit

    path = PACKAGE / "__init__.pyi"
    if os.environ.get("REWRITE_STUB"):
        path.write_text(stub(keras_initaudit._PUBLIC))
    assert path.read_text() == stub(keras_initaudit._PUBLIC)
    assert path.read_text() != stub({**keras_initaudit._PUBLIC, "records": ("Snapshot",)})


def test_every_public_name_resolves_and_unknown_ones_do_not():
    import keras_initaudit

    for name in keras_initaudit.__all__:
        assert callable(getattr(keras_initaudit, name)), name
    assert set(keras_initaudit.__all__) <= set(dir(keras_initaudit))
    with pytest.raises(AttributeError, match="HeNorml"):
        keras_initaudit.HeNorml  # noqa: B018


def test_a_public_function_is_not_hidden_by_a_module_of_its_name():
    modules = {module.split(".")[1] for module in MODULES}
    import keras_initaudit

    assert not modules & set(keras_initaudit.__all__)
