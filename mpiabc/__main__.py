"""`python -m mpiabc`: the command line."""

from mpiabc.cli import main

raise SystemExit(main())
