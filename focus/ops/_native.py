"""Registration of the compiled kernels of `focus._C` as torch operators.

Every operator of FOCUS is made by one call of `define`: schema, CPU and CUDA kernel, fake kernel (shapes only, for
`torch.compile`), gradient and autocast rule. A kernel is a Python function that allocates its outputs with torch and
hands plain memory to `focus._C`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from focus import _C

to_dlpack: Callable[[torch.Tensor], object] = torch.utils.dlpack.to_dlpack  # type: ignore[attr-defined]

module: ModuleType = _C
"""The compiled module in use. The tests put the emulated CUDA build here."""


def _open_library() -> Any:
    """The namespace ``torch.ops.focus``. A second import in one process (after a reload, say) finds it defined."""
    kind = "DEF" if not hasattr(torch.ops.focus, "rasterize") else "FRAGMENT"
    return torch.library.Library("focus", kind)  # type: ignore[no-untyped-call]


_library: Any = _open_library()

Kernel = Callable[..., Any]


def call(name: str, first: torch.Tensor, *arguments: Any) -> None:
    """Runs kernel `name` on the device of `first`, with torch's thread count and its current stream.

    Tensors go as DLPack capsules, which the kernel borrows: they must be contiguous.
    """
    converted = [to_dlpack(a) if isinstance(a, torch.Tensor) else a for a in (first, *arguments)]
    stream = torch.cuda.current_stream(first.device).cuda_stream if first.is_cuda else 0
    getattr(module, name)(*converted, torch.get_num_threads(), stream)


def define(
    schema: str,
    kernel: Kernel,
    fake: Kernel,
    *,
    backward: Kernel | None = None,
    setup_context: Kernel | None = None,
) -> Any:
    """Registers one operator and returns its overload, `torch.ops.focus.<name>.default`.

    In a second import the operator of the first stays: torch has one of each name for the life of a process.

    Args:
        schema: as in torch, for example ``"scale(Tensor x, float s) -> Tensor"``. Floating outputs come first.
        kernel: for the CPU and CUDA. The public function has checked its arguments.
        fake: the same without values, for shape propagation.
        backward, setup_context: as `torch.library.register_autograd` takes them. An operator without them is a backward
            operator: to differentiate through it is an error.
    """
    name = schema.split("(", 1)[0]
    if hasattr(torch.ops.focus, name):
        return getattr(torch.ops.focus, name).default
    qualified_name = f"focus::{name}"
    _library.define(schema)
    _library.impl(name, kernel, "CPU")
    _library.impl(name, kernel, "CUDA")
    torch.library.register_fake(qualified_name, fake, lib=_library)
    if backward is None:

        def backward(ctx: Any, *grads: Any) -> Any:
            raise RuntimeError(f"focus.{name} has no gradient of its own: FOCUS offers first derivatives only")

    torch.library.register_autograd(qualified_name, backward, setup_context=setup_context, lib=_library)
    overload = getattr(torch.ops.focus, name).default
    for device in ("CPU", "CUDA"):
        _library.impl(name, _float32_under_autocast(overload, device), f"Autocast{device}")
    return overload


def _float32_under_autocast(overload: Any, device: str) -> Kernel:
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, f"Autocast{device}"))

    def kernel(*arguments: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return overload(*(widen(a) if isinstance(a, torch.Tensor) else a for a in arguments))

    return kernel


def widen(tensor: torch.Tensor) -> torch.Tensor:
    """float16 and bfloat16 as float32, everything else as it is: the kernels accumulate in float32 or float64."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def empty_unless(
    needed: bool, *shape: int, like: torch.Tensor, dtype: torch.dtype | None = None
) -> torch.Tensor | None:
    """Memory for an output that is only sometimes wanted; None tells the kernel to skip it."""
    return like.new_empty(shape, dtype=dtype) if needed else None


def scratch(like: torch.Tensor, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor | None:
    """Working memory that only the CUDA kernels use; None on the CPU."""
    return empty_unless(like.is_cuda or module is not _C, *shape, like=like, dtype=dtype)


def face_scratch(
    like: torch.Tensor, batch: int, face_count: int, sums: int
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """What CUDA kernels need to add up `sums` numbers over the pixels of each face, as csrc/common/face_scratch.h says;
    Nones on the CPU."""
    return (
        scratch(like, batch, face_count, 4, dtype=torch.int32),
        scratch(like, module.PIECE_LIST_SIZE, dtype=torch.int64),
        scratch(like, module.PIECE_CAPACITY, sums, dtype=torch.float64),
    )
