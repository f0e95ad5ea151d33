"""A real kernel: a run below a cell, interrupted as Jupyter's square button does it, and resumed."""

import re

import pytest

from tests.conftest import HANGS, ROOT, imported

SETUP = """
import time
from pathlib import Path
import mpiabc

def simulate(theta, rng):
    time.sleep(0.0 if Path({folder!r}, "quick").exists() else 0.02)
    return theta["mu"] + rng.standard_normal()

problem = mpiabc.Problem(prior=mpiabc.Prior(mu=mpiabc.Normal(0, 2)), simulate=simulate, observed=1.0)
abc = mpiabc.ABCSMC(problem, 50, threshold=mpiabc.Listed([2, 1, 0.5]), seed=1)
"""
RUN = "history = abc.run('run.db', scheduler=mpiabc.schedulers.Processes(2))"
CAUGHT = """
try:
    raise mpiabc.Interrupted("as if")
except mpiabc.Interrupted as stopped:
    print(stopped.code, isinstance(stopped, SystemExit))
"""
SAME = "print(history[-1].digest() == abc.run('quiet.db', scheduler='serial')[-1].digest())"


class Kernel:
    """A kernel, and what its cells put out."""

    def __init__(self, folder):
        manager = imported("jupyter_client").manager
        self._manager, self._client = manager.start_new_kernel(startup_timeout=HANGS, cwd=str(folder))

    def run(self, cell, on_stream=lambda text: None):
        """What a cell writes, by stream, and its other outputs: (kind, content) each."""
        mine = self._client.execute(cell)
        streams, outputs = {}, []
        while True:
            message = self._client.get_iopub_msg(timeout=HANGS)
            kind, content = message["msg_type"], message["content"]
            if message["parent_header"].get("msg_id") != mine or kind == "execute_input":
                continue
            if kind == "stream":
                streams.setdefault(content["name"], []).append(content["text"])
                on_stream(content["text"])
            elif kind != "status":
                outputs.append((kind, content))
            elif content["execution_state"] == "idle":
                return {name: "".join(texts) for name, texts in streams.items()}, outputs

    def interrupt(self):
        """As the user does it."""
        self._manager.interrupt_kernel()

    def close(self):
        """End it."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """A kernel in the folder of the test."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    kernel = Kernel(tmp_path)
    yield kernel
    kernel.close()


@pytest.mark.long
@pytest.mark.filterwarnings("default")  # what Jupyter's packages warn of is not ours
def test_interrupted_cell_says_one_sentence_and_the_next_one_goes_on(kernel, tmp_path):
    """To the digest of the run that nobody has interrupted; the live line needs no widget."""
    assert kernel.run(SETUP.format(folder=str(tmp_path))) == ({}, [])
    waiting = [kernel.interrupt]

    def interrupt_once(text):
        if waiting and re.search(r"[1-9]\d*/50 accepted", text):
            waiting.pop()()

    streams, ((_, error),) = kernel.run(RUN, interrupt_once)
    assert re.match(r"\rgeneration \d, epsilon 2: \d+/50 accepted, .*\r +\r$", streams.pop("stderr"), re.S)
    assert not streams
    (sentence,) = error["traceback"]
    assert re.fullmatch(
        r".*run\.db: stopped by SIGINT in generation .*; run the cell again to continue", sentence
    )
    (tmp_path / "quick").touch()
    assert kernel.run(CAUGHT) == ({"stdout": "75 False\n"}, [])
    assert not kernel.run(RUN)[1]
    assert kernel.run(SAME)[0]["stdout"] == "True\n"
    ((_, shown),) = kernel.run("history")[1]
    assert "<table>" in shown["data"]["text/html"]
