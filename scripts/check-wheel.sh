#!/usr/bin/env bash
# Builds sdist and wheel, installs the wheel alone in a fresh environment outside the checkout, and uses it there as a
# new user would. Prints the installed size and start-up times. Usage: scripts/check-wheel.sh [PYTHON], with an
# interpreter that has `build` and `setuptools`; by default that of the environment of `make env`.
set -euo pipefail
cd "$(dirname "$0")/.."
checkout=$PWD
python=$(realpath -s "$(command -v "${1:-.venv/bin/python}")")
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
unset PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

# The build takes a copy, which has no files of earlier builds.
mkdir "$place/source" "$place/work"
cp -r pyproject.toml MANIFEST.in README.md LICENSE CHANGELOG.md CITATION.cff src "$place/source"
find "$place/source" \( -name __pycache__ -o -name '*.egg-info' \) -prune -exec rm -rf {} +
(cd "$place/source" && "$python" -m build --no-isolation --outdir "$place/dist" . >"$place/build.log" 2>&1) || {
    cat "$place/build.log"
    exit 1
}
wheel=$(echo "$place"/dist/*.whl)
"$python" - "$wheel" "$(echo "$place"/dist/*.tar.gz)" "$place/source/src" <<'PYTHON'
import sys, tarfile, zipfile
from pathlib import Path

wheel, sdist, source = sys.argv[1:]
files = {str(f.relative_to(source)) for f in Path(source, "gosvae").rglob("*") if f.is_file()}
files = {name for name in files if "__pycache__" not in name and not name.endswith("README.md")}
with zipfile.ZipFile(wheel) as archive:
    missing = files - set(archive.namelist())
with tarfile.open(sdist) as archive:
    missing |= files - {name.partition("/src/")[2] for name in archive.getnames()}
assert not missing, f"not in the wheel or the sdist: {sorted(missing)}"
for path in (wheel, sdist):
    print(f"{Path(path).name}: {Path(path).stat().st_size / 2**20:.1f} MiB")
PYTHON

"$python" -m venv "$place/env"
"$place/env/bin/python" -m pip install --quiet --progress-bar off -c constraints.txt "$wheel"
"$place/env/bin/python" -m pip check
cd "$place/work"
export PATH="$place/env/bin:$PATH" OMP_WAIT_POLICY=PASSIVE

# The README's quick start, on its street.
mkdir -p docs/assets
cp "$checkout/docs/assets/street.jpg" docs/assets
cp docs/assets/street.jpg photo.jpg
python - "$checkout/README.md" <<'PYTHON'
import re, sys
from pathlib import Path

block = re.search(r"^```python\n(.*?)^```$", Path(sys.argv[1]).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
exec(compile(block[1], "README.md", "exec"))
assert Path("seen.png").is_file()
PYTHON
gosvae compress photo.jpg
gosvae info photo.gos
gosvae decompress photo.gos -o photo.png
python -c 'import gosvae; assert gosvae.read_image("photo.png").shape == gosvae.read_image("photo.jpg").shape'
gosvae info gosvae-variable-camvid
gosvae list codecs
gosvae evaluate avif:30 --data streets:1 --quiet --out results
python -m gosvae --version

# Commands that need an extra name it.
says() {
    local wanted=$1 line status=0
    shift
    line=$("$@" 2>&1 >/dev/null) || status=$?
    [[ $status == 2 && $line == *"pip install 'gosvae[$wanted]'"* && $line != *$'\n'* ]] || {
        printf '%s: exit status %d, expected one line that names gosvae[%s], got:\n%s\n' "$*" "$status" "$wanted" "$line"
        return 1
    }
    printf '%s\n' "$line"
}
says jpegxl gosvae compress photo.jpg --codec jpegxl
says plot gosvae evaluate --data streets:1 --sweep jpeg --anchor jpeg
says train gosvae train vqvae --data streets:2 --lpips none --out run
says serve gosvae receive --grpc 127.0.0.1:0
says link gosvae send photo.jpg --udp 127.0.0.1:9 --fec 0.5 --frames 1
says huggingface gosvae evaluate avif:30 --data streets:1 --expert hf:nobody/nothing
says radio gosvae evaluate --data streets:1 --quiet --channel 'awgn snr_db=8'

# Size and start-up time: the smallest of five, because other work on the machine only adds to it.
cat >"$place/measure.py" <<'PYTHON'
import resource, subprocess, time
from importlib.metadata import distributions
from pathlib import Path
from sysconfig import get_path


def cpu_s():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


folder = Path(get_path("purelib"))
size = {p.name: sum(f.lstat().st_size for f in p.rglob("*") if f.is_file()) for p in folder.iterdir()}
tools = ("pip", "setuptools", "_distutils_hack")
own = sum(n for name, n in size.items() if not name.startswith(tools))
names = {d.name for d in distributions()} - set(tools)
print(f"installed: {len(names)} distributions, {own / 2**20:.0f} MiB, of which torch {size['torch'] / 2**20:.0f} MiB")
commands = ("--version", "--help", "info photo.gos", "compress photo.jpg --force", "decompress photo.gos --force")
for words in map(str.split, commands):
    times = []
    for _ in range(5):
        began_s, began_cpu_s = time.perf_counter(), cpu_s()
        subprocess.run(["gosvae", *words], check=True, capture_output=True)
        times.append((time.perf_counter() - began_s, cpu_s() - began_cpu_s))
    wall, cpu = (min(values) for values in zip(*times))
    print(f"gosvae {' '.join(words)}: {wall:.2f} s, {cpu:.2f} s of CPU")
PYTHON
python "$place/measure.py"
