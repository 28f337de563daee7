"""What is shipped beside the package: recipes, launch configurations, small data and documentation."""

from pathlib import Path


def shipped_folder(name: str) -> Path:
    """Return where `recipes`, `accelerate_configs` or `data` lies: inside an installed package, beside a checkout's.

    Args:
        name: The folder's name, or a file's.
    """
    package = Path(__file__).resolve().parent
    inside = package / "shipped" / name
    return inside if inside.exists() else package.parent / name
