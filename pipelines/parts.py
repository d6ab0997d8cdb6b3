"""How the functions of kernels are declared; they are compiled when entry points of `native.py` are used.

What costs compile time, by measurement: each function of its own, as it is optimised and made into machine
code by itself and then once more within each that calls it, so depth counts; each set of argument types; and
what is inlined into a large function. So a function with one caller is inlined, unless that caller is large.
Beside numba's defaults, a division by zero gives what it gives in NumPy: branches that raise cost time.
"""

from numba import njit
from numba.extending import register_jitable

# Compiled into its callers. Called from Python it is what it looks like, and slow.
part = register_jitable(no_cfunc_wrapper=True, error_model="numpy")

# A part whose products and sums may be taken in one step, rounded once.
contracted = register_jitable(no_cfunc_wrapper=True, error_model="numpy", fastmath={"contract"})

# Copied into the caller before types are known; sums are then as the caller has them.
inlined = njit(nogil=True, inline="always", error_model="numpy")
