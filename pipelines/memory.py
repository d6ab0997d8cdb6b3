"""Reading numbers at an address within kernels: views of other types would take long to compile."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def word_at(typing, address):
    """The uint32 at an address (uint64)."""
    return types.uint32(types.uint64), _load(32)


@intrinsic
def address_at(typing, address):
    """The address that is kept at an address (both uint64)."""
    return types.uint64(types.uint64), _load(64)


def _load(bits: int):
    def generate(context, builder, signature, values):
        return builder.load(builder.inttoptr(values[0], ir.IntType(bits).as_pointer()))

    return generate
