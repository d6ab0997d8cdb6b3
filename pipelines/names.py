"""Names that come from data, made fit to be read: a name may hold anything, terminal commands included."""

LONGEST = 200  # characters of a name in a message


def shown(name: object) -> str:
    r"""A name for a message: what does not print is escaped (`\x1b`), and a long one loses its middle.

    >>> shown("a\x1b[2J.jpg"), shown("grün.jpg")
    ('a\\x1b[2J.jpg', 'grün.jpg')
    """
    text = str(name)
    return printable(text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}...{text[-LONGEST // 2 :]}")


def shown_bytes(name: bytes) -> str:
    """As `shown`, of a name in an archive, which need not be text."""
    return shown(name.decode("utf-8", "backslashreplace"))


def printable(text: str) -> str:
    """A text of one line, with what does not print escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
