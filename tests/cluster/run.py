"""Runs the suite on a deployment of yours: ``python tests/cluster/run.py URL``.

It makes and drops databases whose names begin with ``test_``, and touches no other. Their user
may do all (``root``): tests make users, read the log of operations, and ask the profiler. What the
deployment refuses is reported as not tried. The report goes to ``cluster-report.md``::

    python tests/cluster/run.py "mongodb://user:password@mongos.example/" --output report.md
    python tests/cluster/run.py URL -- tests/writing tests/reading -n 4
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="connection string of a replica set or a mongos")
    parser.add_argument("--output", default="cluster-report.md", help="where the report goes")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    own, rest = sys.argv[1:end], sys.argv[end + 1 :]
    given = parser.parse_args(own)
    command = [sys.executable, "-m", "pytest", "-p", "tests.cluster.plugin"]
    command += [f"--cluster-report={Path(given.output).absolute()}", *rest]
    # In the environment and not on the command line, which others on the host can read.
    environment = {**os.environ, "SESSION_STORE_MONGODB_URL": given.url}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    if done.returncode == 0:
        print(f"What held is in {given.output}.")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
