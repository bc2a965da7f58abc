"""Registration of the compiled kernels of `focus._C` as torch operators.

Every operator of FOCUS is made by one call of `define`: schema, CPU and CUDA kernel, fake kernel (shapes only, for
`torch.compile`), gradient and autocast rule. A kernel is a Python function that allocates its outputs with torch and
hands plain memory to `focus._C`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

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

# Without types in torch.
_forward_derivatives: Callable[[bool], Any] = forward_ad._set_fwd_grad_enabled
_unpack_dual: Callable[..., Any] = forward_ad.unpack_dual
_profiler_enabled: Callable[[], bool] = torch._C._autograd._profiler_enabled


def call(name: str, *arguments: Any) -> None:
    """Runs kernel `name` on the device of its first argument, with torch's thread count and its current stream.

    Tensors go as DLPack capsules, which the kernel borrows: they must be contiguous.
    """
    first = arguments[0]
    stream = torch.cuda.current_stream(first.device).cuda_stream if first.is_cuda else 0
    converted = [a if type(a) in _NO_TENSORS else to_dlpack(a) for a in arguments]
    getattr(module, name)(*converted, torch.get_num_threads(), stream)


def define(
    schema: str,
    kernel: Kernel,
    fake: Kernel,
    *,
    backward: Kernel | None = None,
    setup_context: Kernel | None = None,
    tangent: Kernel | None = None,
) -> Any:
    """Registers one operator, `torch.ops.focus.<name>.default`, and returns a function that calls it.

    Of plain tensors, where no mode, transform, trace or profiler asks what is called, that function does without
    torch's dispatcher, which costs more than all else of a call on small tensors. In a second import the operator of
    the first stays: torch has one of each name for the life of a process.

    Args:
        schema: as in torch, for example ``"scale(Tensor x, float s) -> Tensor"``. Floating outputs come first.
        kernel: for the CPU and CUDA. The public function has checked its arguments.
        fake: the same without values, for shape propagation.
        backward, setup_context: as `torch.library.register_autograd` takes them, but that ``ctx.needs_input_grad`` may
            have one item more than there are inputs. An operator without them is a backward operator: to differentiate
            through it is an error.
        tangent: for forward mode: from inputs, outputs and the tangents of the inputs (None where there is none) to
            those of the outputs, None for an output that has none. Without it, forward mode is refused.
    """
    name = schema.split("(", 1)[0]
    if hasattr(torch.ops.focus, name):
        return getattr(torch.ops.focus, name).default
    _library.define(schema)
    _library.impl(name, kernel, "CPU")
    _library.impl(name, kernel, "CUDA")
    torch.library.register_fake(f"focus::{name}", fake, lib=_library)
    overload = getattr(torch.ops.focus, name).default
    dispatched, direct = _with_derivatives(overload, kernel, backward, setup_context, tangent)
    _library.impl(name, dispatched, "Autograd", with_keyset=True)
    torch.library.register_vmap(f"focus::{name}", _one_by_one(overload), lib=_library)
    for device in ("CPU", "CUDA"):
        _library.impl(name, _float32_under_autocast(overload, device), f"Autocast{device}")
    return direct


class _Function(_SingleLevelFunction):
    """A function for one level, for compiled autograd, too."""

    @staticmethod
    def _compiled_autograd_key(ctx: Any) -> tuple[int, ...]:
        return (ctx._autograd_function_id,)


def _with_derivatives(
    overload: Any, kernel: Kernel, backward: Kernel | None, setup_context: Kernel | None, tangent: Kernel | None
) -> tuple[Kernel, Kernel]:
    """What records gradients and computes tangents for the dispatcher, and what does without the dispatcher.

    In place of `torch.library.register_autograd`, whose operators `torch.func.grad` and its kin refuse. All that those
    have to do is done by the dispatcher round this kernel: hence the function for one level, where a
    `torch.autograd.Function` would hand the call back to them.
    """
    name = overload._opname

    def refuse(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(f"focus.{name} has no gradient of its own: FOCUS offers first derivatives only")

    def save_nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    differentiate, save = backward or refuse, setup_context or save_nothing

    def compute(keyset: Any, arguments: tuple[Any, ...]) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return overload.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)

    class Recorded(_Function):
        @staticmethod
        def forward(*arguments: Any) -> Any:
            *inputs, (keyset, _) = arguments
            if not torch._C._are_functorch_transforms_active():
                return compute(keyset, tuple(inputs))
            # A function runs without derivatives, those that transforms outside of this one ask for among them.
            with torch.enable_grad(), _forward_derivatives(True):
                return compute(keyset, tuple(inputs))

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            *inputs_of_operator, (_, has_tangents) = inputs
            if has_tangents:
                ctx.of_tangents = inputs_of_operator, output
            save(ctx, tuple(inputs_of_operator), output)

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> Any:
            inputs, outputs = ctx.of_tangents
            del ctx.of_tangents  # the outputs hold on to the context
            # Tangents are computed without derivatives, those that transforms outside of this one ask for among them.
            with _forward_derivatives(True):
                inputs = [_without_tangent(argument) for argument in inputs]
                several = isinstance(outputs, tuple)
                outputs = tuple(map(_without_tangent, outputs)) if several else _without_tangent(outputs)
                return tangent(inputs, outputs, tangents[:-1])  # type: ignore[misc]

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            found = differentiate(ctx, *grads)
            return (*found, None) if isinstance(found, tuple) else (found, None)

    # What torch calls is the operator's own: functions round these would cost as much as a check of its arguments.
    own = {"forward": kernel, "setup_context": save, "backward": differentiate}
    # The name of a class is what graphs and the anomaly mode of torch show.
    kind: Any = type(Recorded)
    record: Kernel = kind(name, (Recorded,), {}).apply
    record_directly: Kernel = kind(name, (_Function,), {k: staticmethod(f) for k, f in own.items()}).apply

    def dispatched(keyset: Any, *arguments: Any) -> Any:
        transformed = torch._C._are_functorch_transforms_active()
        has_tangents = (transformed or forward_ad._current_level >= 0) and any(map(_has_tangent, arguments))
        if has_tangents and tangent is None:
            raise NotImplementedError(
                f"focus.{name}: second derivatives in forward mode (torch.func.hessian, jvp of a gradient or of a jvp) "
                "are not offered: FOCUS offers first derivatives only"
            )
        if not has_tangents and not (torch.is_grad_enabled() and _any_requires_grad(*arguments)):
            return compute(keyset, arguments)
        with _one_level_at_a_time() if transformed else nullcontext():
            return record(*arguments, (keyset, has_tangents))

    def direct(*arguments: Any) -> Any:
        plain, learns = _look_at(arguments)
        if not plain:
            return overload(*arguments)
        try:
            if learns and torch.is_grad_enabled():
                return record_directly(*arguments)
            return kernel(*arguments)
        except (RuntimeError, ValueError, BufferError):
            if all(map(_is_only_memory, arguments)):
                raise
            return overload(*arguments)

    return dispatched, direct


def _look_at(arguments: tuple[Any, ...]) -> tuple[bool, bool]:
    """Whether nobody but the kernel has to be told of a call, and, if so, whether a gradient may be wanted."""
    if (
        torch.compiler.is_compiling()
        or forward_ad._current_level >= 0
        or _transforms_active()
        or _dispatch_modes()
        or _function_modes()
        or _tracing_state() is not None
        or _profiler_enabled()
    ):
        return False, False
    learns = False
    for argument in arguments:
        kind = type(argument)
        if kind in _TENSORS:
            if not (argument.is_cpu or argument.is_cuda) or argument.is_neg():
                return False, False
            learns = learns or argument.requires_grad
        elif kind not in _NO_TENSORS:  # somebody else's tensor, or a number of a trace
            return False, False
    return True, learns


def _is_only_memory(argument: Any) -> bool:
    """False for zeros, batches (``is_grads_batched``), what a transform has wrapped and the like, which the dispatcher
    makes numbers of. They cannot be borrowed, which is soon enough: to ask beforehand would cost each call as much as
    all of `_look_at`."""
    if not isinstance(argument, torch.Tensor):
        return True
    usual = torch.empty(0, dtype=argument.dtype, device=argument.device)
    return bool(torch._C._dispatch_keys(argument).raw_repr() == torch._C._dispatch_keys(usual).raw_repr())


_TENSORS = frozenset({torch.Tensor, torch.nn.Parameter})
_NO_TENSORS = frozenset({bool, int, float, list, type(None)})
_transforms_active: Callable[[], bool] = torch._C._are_functorch_transforms_active
_dispatch_modes: Callable[[], int] = torch._C._len_torch_dispatch_stack
_function_modes: Callable[[], int] = torch._C._len_torch_function_stack
_tracing_state: Callable[[], Any] = torch._C._get_tracing_state


def _find_requires_grad(*arguments: Any) -> bool:
    return any(isinstance(argument, torch.Tensor) and argument.requires_grad for argument in arguments)


_any_requires_grad: Callable[..., bool] = getattr(torch._C, "_any_requires_grad", _find_requires_grad)  # not in 2.6


@contextmanager
def _one_level_at_a_time() -> Iterator[None]:
    """Lets torch record a function for the one transform that is at work, which it else takes for a mistake."""
    before = torch._C._functorch.get_single_level_autograd_function_allowed()
    torch._C._functorch.set_single_level_autograd_function_allowed(True)
    try:
        yield
    finally:
        torch._C._functorch.set_single_level_autograd_function_allowed(before)


def _has_tangent(argument: Any) -> bool:
    if not (isinstance(argument, torch.Tensor) and argument.is_floating_point()):
        return False
    return _unpack_dual(argument, level=0).tangent is not None


def _without_tangent(argument: Any) -> Any:
    return _unpack_dual(argument, level=0).primal if _has_tangent(argument) else argument


def loss_tangent(gradients: Callable[[tuple[Any, ...], Any, list[bool]], tuple[torch.Tensor, ...]]) -> Kernel:
    """The tangent of a loss, the first of two outputs, whose gradients are at hand: their product with the tangents.

    Args:
        gradients: of the inputs that are marked, from inputs, outputs and these marks, for as many inputs as there are
            images; for a gradient of the loss of 1.
    """

    def rule(inputs: tuple[Any, ...], outputs: Any, tangents: tuple[torch.Tensor | None, ...]) -> tuple[Any, None]:
        images = tangents[:3]
        found = gradients(inputs, outputs, [one is not None for one in images])
        products = [(g * t).sum() for g, t in zip(found, images, strict=True) if t is not None]
        return sum(products[1:], products[0]), None

    return rule


def _one_by_one(overload: Any) -> Kernel:
    """The rule of `torch.func.vmap`: the operator on each item, as if it had been called so."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
        batched = [dim if isinstance(a, torch.Tensor) else None for a, dim in zip(arguments, in_dims, strict=True)]
        if info.batch_size == 0:  # of no item: the sizes of one
            zeros = (
                a if dim is None else a.new_zeros(a.movedim(dim, 0).shape[1:])
                for a, dim in zip(arguments, batched, strict=True)
            )
            one = overload(*zeros)
            if isinstance(one, tuple):
                return tuple(output.new_empty(0, *output.shape) for output in one), (0,) * len(one)
            return one.new_empty(0, *one.shape), 0
        items = [
            overload(*(a if dim is None else a.select(dim, i) for a, dim in zip(arguments, batched, strict=True)))
            for i in range(info.batch_size)
        ]
        if isinstance(items[0], tuple):
            return tuple(torch.stack(outputs) for outputs in zip(*items, strict=True)), (0,) * len(items[0])
        return torch.stack(items), 0

    return rule


def _float32_under_autocast(overload: Any, device: str) -> Kernel:
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, f"Autocast{device}"))

    def kernel(*arguments: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return overload(*(widen(a) if isinstance(a, torch.Tensor) else a for a in arguments))

    return kernel


def widen(tensor: torch.Tensor) -> torch.Tensor:
    """float16 and bfloat16 as float32, everything else as it is: the kernels accumulate in float32 or float64."""
    return tensor.float() if tensor.dtype in _NARROW else tensor


_NARROW = (torch.float16, torch.bfloat16)


def empty_unless(needed: bool, *shape: int, like: torch.Tensor) -> torch.Tensor | None:
    """Memory for an output that is only sometimes wanted; None tells the kernel to skip it."""
    return like.new_empty(*shape) if needed else None


def or_nothing(output: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    """What an operator, whose outputs are tensors, returns for one that was not wanted."""
    return like.new_empty(0) if output is None else output


def uses_cuda_kernels(tensor: torch.Tensor) -> bool:
    """Whether a call may run these: on CUDA, and on the CPU where tests have them emulated."""
    return tensor.is_cuda or module is not _C


def scratch(like: torch.Tensor, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor | None:
    """Working memory that only the CUDA kernels use; None on the CPU."""
    return like.new_empty(shape, dtype=dtype) if uses_cuda_kernels(like) else None


def face_scratch(
    like: torch.Tensor, batch: int, face_count: int, sums: int
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """What CUDA kernels need to add up `sums` numbers over the pixels of each face, as csrc/common/face_scratch.h says;
    Nones on the CPU."""
    if not uses_cuda_kernels(like):
        return None, None, None
    return (
        scratch(like, 5 * batch * face_count + 1, dtype=torch.int32),
        scratch(like, module.PIECE_LIST_SIZE, dtype=torch.int64),
        scratch(like, module.PIECE_CAPACITY, sums, dtype=torch.float64),
    )
