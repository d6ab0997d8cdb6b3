"""A libjpeg of this machine, called by address without the GIL, and without ever ending the process.

Pillow's and torchvision's wheels carry libjpeg-turbo, so a plain installation has one and nothing has to be
built. Its interface has two pitfalls for callers that are not written in C. It reports errors by a function
that must not return: `_GUARD`, a few lines of LLVM (numba brings the compiler), calls setjmp before each call
and longjmp there, over no frames but the library's own. And it is used through a struct whose layout depends
on the version that it was built to look like: the library itself refuses a wrong version or size, and only
the two layouts that are in use are known here.
"""

import ctypes
import ctypes.util
import functools
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np

STRUCT_BYTES = 1024  # more than any layout takes
ENV_BYTES = 1024  # a jmp_buf; the largest known one takes 392
ERRORS_BYTES = 512  # the error manager, then one byte for each message, set when it was given
MESSAGES_AT = 256
FAILED = -1  # what a guarded call returns where the library reported an error
MOST_ROWS = 32  # of a plane at once: eight times its sampling, of which the library allows up to four
MAX_SCANS = 500  # a progressive file of more is made to keep a decoder busy

_GUARD = f"""
target triple = "{llvm.get_process_triple()}"
declare i32 @_setjmp(ptr) returns_twice
declare void @longjmp(ptr, i32) noreturn

define i64 @guarded(ptr %env, ptr %function, i64 %a, i64 %b, i64 %c) noinline {{
  %again = call i32 @_setjmp(ptr %env) returns_twice
  %first = icmp eq i32 %again, 0
  br i1 %first, label %go, label %failed
go:
  %result = call i32 %function(i64 %a, i64 %b, i64 %c)
  %wide = zext i32 %result to i64
  ret i64 %wide
failed:
  ret i64 {FAILED}
}}

define void @fail(ptr %struct) noreturn {{
  %slot = getelementptr i8, ptr %struct, i64 24
  %env = load ptr, ptr %slot
  call void @longjmp(ptr %env, i32 1)
  unreachable
}}

define void @note(ptr %struct, i32 %level) {{
  %warning = icmp slt i32 %level, 0
  br i1 %warning, label %keep, label %done
keep:
  %errors = load ptr, ptr %struct
  %at = getelementptr i8, ptr %errors, i64 40
  %code = load i32, ptr %at
  %known = icmp ult i32 %code, {ERRORS_BYTES - MESSAGES_AT}
  br i1 %known, label %mark, label %done
mark:
  %wide = zext i32 %code to i64
  %place = add i64 %wide, {MESSAGES_AT}
  %flag = getelementptr i8, ptr %errors, i64 %place
  store i8 1, ptr %flag
  br label %done
done:
  ret void
}}

define void @quiet(ptr %struct) {{
  ret void
}}

define void @watch(ptr %struct) {{
  %at = getelementptr i8, ptr %struct, i64 172
  %scan = load i32, ptr %at
  %many = icmp sgt i32 %scan, {MAX_SCANS}
  br i1 %many, label %stop, label %done
stop:
  call void @fail(ptr %struct)
  unreachable
done:
  ret void
}}
"""


@dataclass(frozen=True)
class Layout:
    """A version of the interface, and the bytes of its decompressor."""

    version: int
    size: int


LAYOUTS = (Layout(62, 632), Layout(80, 656))

# What both share: bytes into the decompressor, and into a component of it.
CLIENT, PROGRESS, WIDTH, HEIGHT, COMPONENTS, COLOURS, OUT_COLOURS = 24, 16, 48, 52, 56, 60, 64
RAW, OUT_HEIGHT, OUT_LINE, PRECISION, COMPONENT, MAX_H, MAX_V = 92, 140, 168, 296, 304, 408, 412
SENT = 192  # coef_bits: for each component and coefficient, the bits that are still to come; -1: all of them
COMPONENT_BYTES, H, V, BLOCKS_WIDE, BLOCKS_HIGH = 96, 8, 12, 28, 32

_FUNCTIONS = (
    "mem_src",
    "read_header",
    "start_decompress",
    "read_raw_data",
    "abort_decompress",
    "finish_decompress",
)
GUARDED, ENV, STRUCT, MEM_SRC, READ_HEADER, START, READ_RAW, ABORT, FINISH, ROWS = range(10)

# Warnings that say nothing of the pixels.
_HARMLESS = (b"Unknown Adobe", b"Warning: unknown JFIF", b"Corrupt JPEG data: bad ICC")


class Handle:
    """One decompressor with its error manager; for one thread at a time.

    calls: uint64 [10], the addresses that the kernels in `pipelines.jpeg` call and are given
    rows: uint64 [3, MOST_ROWS], where the next rows of each plane go
    struct: int32 view of the decompressor; messages: uint8, set by the number of each warning
    """

    def __init__(self, library: "Library"):
        self._library = library  # its code must outlive this
        self._memory = np.zeros(STRUCT_BYTES + ENV_BYTES + ERRORS_BYTES + 64, np.uint8)
        start = -self._memory.ctypes.data % 64
        struct, env, errors = np.split(self._memory[start:], (STRUCT_BYTES, STRUCT_BYTES + ENV_BYTES))
        self.struct, self.messages = struct.view(np.int32), errors[MESSAGES_AT:ERRORS_BYTES]
        self.rows = np.zeros((3, MOST_ROWS), np.uint64)
        self._planes = np.array([row.ctypes.data for row in self.rows], np.uint64)
        guard, functions = library.guard, library.functions
        self.calls = np.array(
            [
                guard["guarded"],
                env.ctypes.data,
                struct.ctypes.data,
                *(functions[name] for name in _FUNCTIONS),
                self._planes.ctypes.data,
            ],
            np.uint64,
        )
        table = errors[:MESSAGES_AT].view(np.uint64)
        pointers = struct.view(np.uint64)
        library.std_error(errors.ctypes.data)
        table[0], table[1], table[2] = guard["fail"], guard["note"], guard["quiet"]
        pointers[0], pointers[CLIENT // 8] = errors.ctypes.data, env.ctypes.data
        if library.create(env, struct) == FAILED:
            raise OSError(f"{library.path} has another layout than {library.layout}")
        self._watch = np.array([guard["watch"], 0, 0, 0], np.uint64)
        pointers[PROGRESS // 8] = self._watch.ctypes.data
        self.damage = _damage(int(table[17]), int(errors[:MESSAGES_AT].view(np.int32)[36]))

        weakref.finalize(self, _destroy, library, self._memory, struct.ctypes.data).atexit = False


def _destroy(library: "Library", memory: np.ndarray, struct: int) -> None:
    """Frees what the library took; `memory`, which holds the struct, lives until then."""
    library.destroy(struct)


def _damage(table: int, last: int) -> np.ndarray:
    """bool [messages]: the warnings that mean that pixels are not what was stored."""
    texts = (ctypes.c_char_p * (last + 1)).from_address(table)
    damage = np.ones(ERRORS_BYTES - MESSAGES_AT, np.bool_)
    for number, text in enumerate(texts):
        damage[number] = not (text or b"").startswith(_HARMLESS)
    return damage


class Library:
    """A loaded libjpeg: addresses of its functions and of the guard around them."""

    def __init__(self, path: str, layout: Layout):
        self.path, self.layout = path, layout
        self._loaded = ctypes.CDLL(path)
        names = (*_FUNCTIONS, "CreateDecompress", "destroy_decompress", "std_error")
        self.functions = {name: _address(getattr(self._loaded, f"jpeg_{name}")) for name in names}
        self.guard = _guard()
        self.std_error = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(self.functions["std_error"])
        self.destroy = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.functions["destroy_decompress"])
        Handle(self)  # raises OSError if the layout is another

    def create(self, env: np.ndarray, struct: np.ndarray) -> int:
        """jpeg_CreateDecompress, guarded: FAILED where the layout is another."""
        kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3)
        function, layout = self.functions["CreateDecompress"], self.layout
        return kind(self.guard["guarded"])(
            env.ctypes.data, function, struct.ctypes.data, layout.version, layout.size
        )


def _address(function) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


@functools.cache
def _guard() -> dict[str, int]:
    """Addresses of the functions of `_GUARD`, compiled once a process (milliseconds)."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(_GUARD), machine)
    engine.finalize_object()
    _engines.append(engine)
    return {name: engine.get_function_address(name) for name in ("guarded", "fail", "note", "quiet", "watch")}


_engines: list[llvm.ExecutionEngine] = []  # compiled code lives as long as its engine


def _candidates() -> Iterator[str]:
    """Paths of libraries to try: those that Pillow's and torchvision's wheels carry, then the system's."""
    import PIL

    pillow = Path(PIL.__file__).parent
    for folder in (pillow.parent / "pillow.libs", pillow / ".dylibs", pillow.parent / "torchvision.libs"):
        yield from map(str, sorted(folder.glob("libjpeg*")))
    if (found := ctypes.util.find_library("jpeg")) is not None:
        yield found


@functools.cache
def find_library() -> Library | None:
    """The first libjpeg that can be used here, or None: then Pillow alone decodes."""
    if sys.maxsize < 1 << 32 or sys.platform == "win32":
        return None  # the layouts are those of 64-bit systems whose long has 64 bits
    for path in _candidates():
        for layout in LAYOUTS:
            try:
                return Library(path, layout)
            except (OSError, AttributeError):
                continue
    return None
