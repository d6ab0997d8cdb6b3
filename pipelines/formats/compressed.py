"""Tars that are compressed as a whole: no image in them has a place of its own, so they are refused."""

ENDINGS = (
    ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lz4",
)  # fmt: skip
BEGINNINGS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def is_compressed(name: str) -> bool:
    """Whether a file is a compressed tar, by its name."""
    return name.lower().endswith(ENDINGS)


def compression(start: bytes) -> str:
    """What a file that begins like this is compressed with, "" for nothing that is known."""
    return next((name for magic, name in BEGINNINGS.items() if start.startswith(magic)), "")


def why_refused(path: object, more: int = 0) -> str:
    """The sentence on a compressed tar, and so many more."""
    others = f" (and {more:,} more)" if more else ""
    return (
        f"{path}{others} is a compressed tar, in which no image has a place of its own: uncompress it first, "
        "or leave it out by naming the files that are meant"
    )
