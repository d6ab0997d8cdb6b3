"""How pages are made: templates in, one file out, whole or not at all."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined


def templates() -> Environment:
    """The templates; what is put into them is escaped."""
    return Environment(
        loader=PackageLoader("raymask", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_page(html: str, file: Path) -> Path:
    """Writes the page and returns its path."""
    beside = file.with_name(f".{file.name}")
    beside.write_text(html, encoding="utf-8")
    beside.replace(file)
    return file
