#!/bin/sh
# Makes .venv beside this file and installs jaxzoo into it, with the versions that CI tests.
# Usage: sh setup.sh [EXTRA[,EXTRA...]]    for example: sh setup.sh torch,cuda13
set -e
cd "$(dirname "$0")"

if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "error: jaxzoo needs Python 3.11 or newer, and python3 is $(python3 --version 2>&1)" >&2
    exit 2
fi

# Debian and Ubuntu keep what venv needs in a package of its own.
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    as_root=$([ "$(id -u)" = 0 ] || echo sudo)
    $as_root apt-get update && $as_root apt-get install -y python3-venv
fi

[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable ".${1:+[$1]}"
