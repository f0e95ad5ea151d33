"""A real JupyterHub: the notebook is executed, and its file is run on ranks in a terminal of the hub."""

import json
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import mpiabc
from tests import problems
from tests.conftest import HANGS, ROOT, environment, imported, missing

BIN = Path(sys.executable).parent
HUB = """
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub_port}"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_port}"
c.ConfigurableHTTPProxy.command = [{proxy!r}]
c.JupyterHub.db_url = "sqlite:///{folder}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{folder}/cookie_secret"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = "{folder}/home"
c.Spawner.cmd = [{singleuser!r}]
c.Spawner.args = ["--allow-root", "--ServerApp.root_dir={folder}/home"]
c.Spawner.environment = {{"JUPYTERHUB_SINGLEUSER_APP": "jupyter_server.serverapp.ServerApp"}}
c.Spawner.env_keep = ["PATH", "PYTHONPATH", "LANG"]
c.JupyterHub.services = [{{"name": "test", "api_token": "{token}"}}]
c.JupyterHub.load_roles = [
    {{"name": "all", "scopes": ["admin:users", "admin:servers", "access:servers"], "services": ["test"]}}
]
"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The folder of the executed notebook, and the notebook."""
    nbclient, nbformat = imported("nbclient"), imported("nbformat")
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(ROOT / "examples" / "quickstart.ipynb", 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
        nbclient.NotebookClient(notebook, timeout=HANGS, resources={"metadata": {"path": folder}}).execute()
    return folder, notebook


def outputs(notebook):
    return "".join(
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.get("name") != "stderr"  # where runs say how far they are
    )


@pytest.mark.long
@pytest.mark.filterwarnings("default")  # what Jupyter's packages warn of is not ours
def test_notebook_runs_and_watches_a_run(executed):
    folder, notebook = executed
    text = outputs(notebook)
    assert re.findall(r"generation (\d): epsilon", text) == ["0", "1", "2", "3"]
    assert mpiabc.open(folder / "quickstart.db")[-1].digest() in text
    assert not any(cell.get("outputs") for cell in committed().cells)  # none are kept in the repository


def committed():
    return imported("nbformat").read(ROOT / "examples" / "quickstart.ipynb", 4)


class Hub:
    """A hub of one user, and its API."""

    def __init__(self, folder):
        self.folder = folder
        self.token = secrets.token_hex(16)
        ports = dict(zip(("port", "hub_port", "proxy_port"), free_ports(3), strict=True))
        self.host = f"127.0.0.1:{ports['port']}"
        config = folder / "config.py"
        config.write_text(
            HUB.format(
                **ports,
                folder=folder,
                token=self.token,
                proxy=str(BIN / "configurable-http-proxy"),
                singleuser=str(BIN / "jupyterhub-singleuser"),
            )
        )
        (folder / "home").mkdir(exist_ok=True)
        self.log = (folder / "log").open("w")
        self._process = subprocess.Popen(
            [BIN / "jupyterhub", "--config", config, "--debug"],
            cwd=folder,
            env=environment(CONFIGPROXY_AUTH_TOKEN=secrets.token_hex(16)),
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def ask(self, method, path):
        """The answer of the API; None while there is none."""
        request = urllib.request.Request(
            f"http://{self.host}{path}", method=method, headers={"Authorization": f"token {self.token}"}
        )
        request.data = b"{}" if method == "POST" else None
        try:
            with urllib.request.urlopen(request, timeout=HANGS) as answer:
                return json.loads(answer.read() or b"{}")
        except (urllib.error.URLError, ConnectionError, TimeoutError, json.JSONDecodeError):
            return None

    def until(self, question):
        """The first answer; fails after a time, with the hub's log."""
        end = time.monotonic() + HANGS
        while time.monotonic() < end and self._process.poll() is None:
            if answer := question():
                return answer
            time.sleep(0.2)
        self.log.flush()
        return pytest.fail((self.folder / "log").read_text()[-5000:])

    def close(self):
        self._process.terminate()  # the hub ends its proxy and servers
        self._process.wait(HANGS)
        self.log.close()


def free_ports(n):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.mark.filterwarnings("default")
@pytest.mark.long
def test_terminal_of_a_jupyterhub_runs_the_file_on_ranks(executed, tmp_path):
    """With the digest that the notebook has found."""
    websocket = imported("websocket")
    if not all((BIN / name).exists() for name in ("jupyterhub", "configurable-http-proxy", "mpiexec")):
        missing("JupyterHub, its proxy or mpiexec is not installed: pip install .[test,mpich]")
    folder, _ = executed
    shutil.copy(folder / "fit.py", tmp_path)
    hub = Hub(tmp_path)
    try:
        hub.until(lambda: hub.ask("GET", "/hub/api/"))
        hub.ask("POST", "/hub/api/users/ada")
        hub.ask("POST", "/hub/api/users/ada/server")
        hub.until(lambda: hub.ask("GET", "/hub/api/users/ada")["servers"].get("", {}).get("ready"))
        name = hub.until(lambda: hub.ask("POST", "/user/ada/api/terminals"))["name"]
        terminal = websocket.create_connection(
            f"ws://{hub.host}/user/ada/terminals/websocket/{name}",
            header=[f"Authorization: token {hub.token}"],
            timeout=HANGS,
        )
        command = f"cd {tmp_path} && {BIN}/mpiexec -n 2 {sys.executable} fit.py; echo status=$?"
        terminal.send(json.dumps(["stdin", f"export PYTHONPATH={ROOT}; {command}\r"]))
        said = ""
        while not re.search(r"status=\d", said):
            kind, *content = json.loads(terminal.recv())
            said += content[0] if kind == "stdout" else ""
        terminal.close()
    finally:
        hub.close()
    assert "status=0" in said, said
    digests = problems.digests(mpiabc.open(tmp_path / "fit.db"))
    assert digests == problems.digests(mpiabc.open(folder / "quickstart.db"))
    assert digests[-1] in re.sub(r"\s", "", said)
