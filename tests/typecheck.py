"""The run-time checker of annotations in tests."""

from beartype import BeartypeConf, beartype

# An int is fine where a float is asked for, as for every static type checker.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
