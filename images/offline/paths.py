"""Where things are. All that is made on this machine is under .tools/ of the checkout, or in the container engine."""

from pathlib import Path

OFFLINE = Path(__file__).resolve().parent
ROOT = OFFLINE.parents[1]
TOOLS = ROOT / ".tools"
BIN = TOOLS / "bin"  # programs
KEYS = TOOLS / "keys"  # <program>: the content key that it was built from
LOGS = TOOLS / "logs"  # one file per step
STATE = TOOLS / "state"  # what `make down` has to undo
TEMPORARY = TOOLS / "tmp"  # emptied by every run
