"""Write the scripts of the folder `jobscripts` anew from their templates."""

from mpiabc.cli import jobscript
from tests.conftest import ROOT

if __name__ == "__main__":
    for name in jobscript.scripts():
        (ROOT / "jobscripts" / f"{name}.sh").write_text(jobscript.written(name, {}))
