"""What an error of another library says, short enough for a sentence of ours."""


def first_line(error: BaseException) -> str:
    """Its first line, or its name where it says nothing; at most 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
