"""`python -m pktbpf`: the command line, as the `pktbpf` script starts it."""

from __future__ import annotations

from pktbpf.cli import main

if __name__ == "__main__":
    main()
