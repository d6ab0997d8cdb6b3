"""Which bytes are wanted: a remote file, and everything that shows that they are the right ones."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from pipelines.remote.urls import SHARDS, identity, name_of, public

KINDS = tuple(suffix[1:] for suffix in SHARDS)


@dataclass(frozen=True)
class Wanted:
    """A file of `size` bytes behind `url`.

    checksum: "blake2b:..." of the file where known, else ""
    tag: the server's, from when the data set was opened
    """

    url: str
    size: int
    checksum: str = ""
    tag: str = ""

    @cached_property
    def name(self) -> str:
        """The name of its local copy: a digest, of which copies of another content have another one.

        With a checksum two addresses of one file share a copy; nothing of the URL stands in the name.
        """
        known = self.checksum or f"{identity(self.url)}\0{self.tag}"
        return hashlib.blake2b(f"{known}\0{self.size}".encode(), digest_size=20).hexdigest()

    @property
    def kind(self) -> str:
        """How its name ends."""
        return name_of(self.url).rpartition(".")[2].lower()

    @property
    def public(self) -> str:
        """Its URL for messages."""
        return public(self.url)
