"""Print the folder of the adapters, for options that take a file."""

import sys
from pathlib import Path


sys.stdout.write(f"{Path(__file__).parent}\n")
