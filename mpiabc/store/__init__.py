"""The run's file: one SQLite database, written by the leading process, readable at any time.

A generation is one row of a few large blobs, committed in one transaction before anything depends on
it; while it is open, a journal keeps the records that are finished. The rollback journal of SQLite is
used, not the write-ahead log, whose shared memory does not exist on network file systems; where file
locks do not work either, SQLite is made to do without them, which is safe because one process writes,
which alone mends what a killed one has left, and readers check what they read: every value has a checksum,
and the number of generations is kept apart. A file may come from anybody: it is looked at before it is read.
"""

from mpiabc.store.database import Store
from mpiabc.store.history import History
from mpiabc.store.journal import Journal
from mpiabc.store.live import Live
from mpiabc.store.schema import FORMAT
from mpiabc.store.sessions import session
from mpiabc.store.writer import Writer

__all__ = ["FORMAT", "History", "Journal", "Live", "Store", "Writer", "session"]
