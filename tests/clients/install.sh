#!/bin/sh
# Installs the clients into build/clients: those of Python apart from edgesdk's own libraries, those of Node by npm.
set -eu
cd "$(dirname "$0")/../.."
mkdir -p build/clients
[ -x build/clients/python/bin/python ] || python3 -m venv build/clients/python
build/clients/python/bin/python -m pip install --quiet -r tests/clients/requirements.txt
cp tests/clients/package.json build/clients/
npm install --silent --no-audit --no-fund --no-package-lock --prefix build/clients
