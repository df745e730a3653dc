"""A browser and TensorBoards for the tests of the page; skipped without chromium, unless REQUIRE_BROWSER=1."""

from pathlib import Path

import accessibility
import chromium
import pytest
import residual_network
from deep_network import Network, findings_of
from tensorboard_server import tensorboard

from keras_initaudit.records import Snapshot
from keras_initaudit.tensorboard.summary import Writer

STEPS = (0, 1, 2, 5, 10, 20)
EVIL = [
    "<b>bold</b>",
    "<img src=x onerror=alert(1)>",
    "a&amp;b",
    "\"quotes\" 'q'",
    "\N{SNOWMAN}" + "long" * 30,
    "100% #&=?/x",
]


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in Path(item.fspath).parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chrome():
    """One browser for all tests: each opens the tab anew."""
    reason = chromium.missing()
    if reason and not chromium.required():
        pytest.skip(reason)
    with chromium.browser() as driver:
        yield driver


def write(folder, network, steps=STEPS, rate=0.05):
    """Trains, logs, and returns the snapshots that were logged."""
    writer = Writer(folder / "initaudit")
    snapshots = list(network.audits(steps, rate))
    for snapshot in snapshots:
        writer.write(snapshot, findings_of(snapshot))
    writer.close()
    return snapshots


def write_blocks(folder, findings=(), trials=(), **options):
    """The audits of a residual network."""
    writer = Writer(folder / "initaudit")
    snapshots = list(residual_network.audits((0, 1, 2), **options))
    for snapshot in snapshots:
        writer.write(snapshot, list(findings), trials=list(trials))
    writer.close()
    return snapshots


def _write_void(folder):
    """The audit of a model without a layer."""
    writer = Writer(folder / "initaudit")
    writer.write(Snapshot(0, (), (), loss=1.0), [])
    writer.close()


@pytest.fixture(scope="session")
def logged(tmp_path_factory):
    """A folder with runs of every kind, and what was logged of each."""
    folder = tmp_path_factory.mktemp("logs")
    return folder, {
        "good": write(folder / "good", Network(12)),
        "bad": write(folder / "bad", Network(12, std=0.6)),
        "nan": write(folder / "nan", Network(30, std=50.0)),
        "deep": write(folder / "deep", Network(200, std=1.2), (0, 5)),
        "evil <i>": write(folder / "evil <i>", Network(6, names=EVIL.__getitem__)),
        "two": write(folder / "two", Network(2)),
        "void": _write_void(folder / "void"),
        "blocks": write_blocks(
            folder / "blocks",
            residual_network.saturated_units(),
            [residual_network.trial()],
            saturated=0.93,
            branch=1e-4,
        ),
        "blocks_well": write_blocks(folder / "blocks_well"),
    }


@pytest.fixture(scope="session")
def server(tmp_path_factory, logged, chrome):
    with tensorboard(tmp_path_factory.mktemp("server"), logged[0]) as running:
        assert len(running.runs(9)) == 9
        yield running


@pytest.fixture
def page(chrome, server):
    """Opens the tab on a view; what the console says at the end of the test is a failure."""

    def open_view(view="", **options):
        chromium.open_tab(chrome, server.address, view, **options)
        return chrome

    chromium.errors(chrome)
    yield open_view
    assert chromium.errors(chrome) == []


@pytest.fixture(scope="session")
def axe():
    script = accessibility.source()
    if script is None:
        if chromium.required():
            pytest.fail("axe-core is not there: npm cannot install it")
        pytest.skip("axe-core is not there")
    return script
