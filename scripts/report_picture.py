"""Take the README's picture of a run's report.html, with a headless Chromium or Chrome.

    .venv/bin/python recipes/tinyllama_grpo.py --config recipes/configs/embedded.yaml
    .venv/bin/python scripts/report_picture.py runs/embedded

It is the page as it is, 1400 pixels wide, without the charts after the first six: figures, curves and the first
completions are on one picture.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path


PICTURE = Path(__file__).resolve().parent.parent / "docs/figures/report.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SHORTER = """<style>
.charts figure:nth-child(n + 7), section:has(.charts):not(:has(figure:nth-child(7))) { display: none }
</style></head>"""


def main() -> None:
    """Take the picture of the run that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run's folder")
    page = (parser.parse_args().run / "report.html").read_text(encoding="utf-8")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"Taking the picture needs one of {', '.join(BROWSERS)}.")
    with tempfile.TemporaryDirectory() as folder:
        shorter = Path(folder, "report.html")
        shorter.write_text(page.replace("</head>", SHORTER, 1), encoding="utf-8")
        window = ("--window-size=1400,1400", f"--screenshot={PICTURE}", f"--user-data-dir={folder}/profile")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *window]
        subprocess.run([*command, shorter.as_uri()], check=True, capture_output=True, timeout=60)
    print(f"Written: {PICTURE}")


if __name__ == "__main__":
    main()
