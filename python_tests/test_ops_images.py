"""What the losses on images have in common: sizes, layouts, threads, sums, and refusals (see test_ops_contract.py)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from focus import ops
from focus.ops import reference

Loss = Callable[..., torch.Tensor]

LOSSES: dict[str, Loss] = {
    "neighbor_min": lambda module, *images: module.neighbor_min(*images).square().sum(),
    "neighbor_min_loss": lambda module, *images: module.neighbor_min_loss(*images, power=1, reduction="sum"),
    "masked_photometric_loss": lambda module, *images: module.masked_photometric_loss(*images),
    "outlier_robust_loss": lambda module, *images: module.outlier_robust_loss(*images, sigma=0.25)[0],
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def _images(batch: int, height: int, width: int, channels: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    shapes = ((batch, channels, height, width),) * 2 + ((batch, 1, height, width),)
    return [torch.rand(shape, generator=generator).requires_grad_() for shape in shapes]


def _value_and_gradients(loss: Loss, module: Any, images: list[torch.Tensor]) -> list[torch.Tensor]:
    value = loss(module, *images)
    return [value.detach(), *torch.autograd.grad(value, images)]


@every_loss
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 70), (2, 70, 1), (1, 8, 32), (3, 17, 65), (1, 130, 70)], ids=str)
@pytest.mark.parametrize("channels", [3, 2])
def test_sizes_round_the_limits_of_tiles_and_chunks(name: str, shape: tuple[int, int, int], channels: int) -> None:
    images = _images(*shape, channels)
    actual = _value_and_gradients(LOSSES[name], ops, images)
    for a, b in zip(actual, _value_and_gradients(LOSSES[name], reference, images), strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm()


@every_loss
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 33), (1, 33, 35), (2, 36, 34), (1, 9, 44)], ids=str)
def test_sizes_on_cuda(name: str, shape: tuple[int, int, int], kernel_device: torch.device) -> None:
    images = [image.detach().to(kernel_device).requires_grad_() for image in _images(*shape)]
    actual = _value_and_gradients(LOSSES[name], ops, images)
    for a, b in zip(actual, _value_and_gradients(LOSSES[name], reference, images), strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm()


@every_loss
def test_memory_that_is_not_aligned_to_16_bytes(name: str, kernel_device: torch.device) -> None:
    """The CUDA kernels read four pixels at once where they can, which must not change a bit."""
    images = [image.detach().to(kernel_device) for image in _images(2, 12, 40)]
    results = []
    for shift in (0, 1):
        moved = []
        for image in images:
            memory = image.new_empty(image.numel() + shift)[shift:]
            moved.append(memory.view_as(image).copy_(image).requires_grad_())
        assert all(image.data_ptr() % 16 == 4 * shift for image in moved)
        results.append(_value_and_gradients(LOSSES[name], ops, moved))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.fixture
def restored_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@every_loss
@pytest.mark.usefixtures("restored_threads")
def test_neither_vector_code_nor_threads_change_a_bit(name: str, every_vector_code: list[Callable[[], None]]) -> None:
    """Of images that are large enough for several threads to start; their rows do not fill registers."""
    images = _images(4, 301, 427)
    results = []
    for choose in every_vector_code:
        choose()
        for threads in (1, 2, 5, 1):
            torch.set_num_threads(threads)
            value, *gradients = _value_and_gradients(LOSSES[name], ops, images)
            results.append([*gradients, value] if name.endswith("loss") else gradients)  # else torch sums the value
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork processes")
def test_several_threads_in_a_forked_process(tmp_path: Path) -> None:
    """The threads of torch's OpenMP runtime are not forked with the process that used them: waiting would not end."""
    code = """
import os, signal, torch
from focus import ops
torch.set_num_threads(2)
images = torch.rand(2, 3, 400, 400), torch.rand(2, 3, 400, 400)
loss = lambda: float(ops.neighbor_min_loss(*images))
before = loss()
child = os.fork()
if child == 0:
    signal.alarm(50)  # a child that waits for ever would outlive the test
    os._exit(0 if loss() == before else 1)
assert os.waitpid(child, 0)[1] == 0
assert loss() == before
"""
    # Elsewhere, so that Python finds the package that is tested and not a folder of sources beside it.
    environment = {**os.environ, "PYTHONPATH": str(Path(ops.__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=tmp_path, env=environment)


@every_loss
def test_callers_in_several_threads(name: str) -> None:
    inputs = [_images(1, 20 + i, 30) for i in range(8)]
    alone = [LOSSES[name](ops, *images).detach() for images in inputs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda images: LOSSES[name](ops, *images).detach(), inputs))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@every_loss
def test_channels_last_and_flipped_images(name: str) -> None:
    images = _images(2, 12, 11)
    expected = _value_and_gradients(LOSSES[name], ops, images)
    strided = [image.detach().contiguous(memory_format=torch.channels_last).requires_grad_() for image in images]
    assert not strided[0].is_contiguous()
    assert all(
        torch.equal(a, b) for a, b in zip(_value_and_gradients(LOSSES[name], ops, strided), expected, strict=True)
    )
    half = [torch.cat([image, image], 3).detach()[..., :11].requires_grad_() for image in images]
    assert all(torch.equal(a, b) for a, b in zip(_value_and_gradients(LOSSES[name], ops, half), expected, strict=True))


@every_loss
def test_mask_may_lack_its_channel_axis(name: str) -> None:
    target, reconstruction, mask = _images(2, 6, 5)
    assert torch.equal(
        LOSSES[name](ops, target, reconstruction, mask[:, 0]), LOSSES[name](ops, target, reconstruction, mask)
    )
    (gradient,) = torch.autograd.grad(LOSSES[name](ops, target, reconstruction, mask[:, 0]), mask)
    (expected,) = torch.autograd.grad(LOSSES[name](ops, target, reconstruction, mask), mask)
    assert torch.equal(gradient, expected)


@every_loss
@pytest.mark.parametrize("shape", [(0, 5, 5), (2, 0, 5), (2, 5, 0)], ids=str)
def test_no_pixels_cost_nothing(name: str, shape: tuple[int, int, int], kernel_device: torch.device) -> None:
    images = [image.detach().to(kernel_device).requires_grad_() for image in _images(*shape)]
    for module in (ops, reference):
        value, *gradients = _value_and_gradients(LOSSES[name], module, images)
        assert value == 0
        assert [gradient.shape for gradient in gradients] == [image.shape for image in images]


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_images_are_summed_in_single_precision(name: str, dtype: torch.dtype) -> None:
    images = [image.detach().to(dtype) for image in _images(1, 40, 40)]
    wide = [image.float() for image in images]
    assert torch.equal(LOSSES[name](ops, *images), LOSSES[name](ops, *wide))


@pytest.mark.parametrize("name", [name for name in LOSSES if name.endswith("loss")])
def test_a_million_pixels_add_up(name: str) -> None:
    """Equal terms, of which a running sum in single precision would lose 1e-3."""
    target, mask = torch.full((1, 3, 1000, 1000), 0.3), torch.ones(1, 1, 1000, 1000)
    value = LOSSES[name](ops, target, torch.full_like(target, 0.2), mask)
    tile = LOSSES[name](ops, target[..., :8, :32], torch.full((1, 3, 8, 32), 0.2), mask[..., :8, :32])
    scale = 1e6 / 256 if name == "neighbor_min_loss" else 1
    torch.testing.assert_close(value, tile * scale, rtol=1e-6, atol=0)


@every_loss
def test_upstream_gradient_scales(name: str) -> None:
    images = _images(1, 6, 7)
    once = torch.autograd.grad(LOSSES[name](ops, *images), images)
    twice = torch.autograd.grad(-2 * LOSSES[name](ops, *images), images)
    for a, b in zip(once, twice, strict=True):
        torch.testing.assert_close(-2 * a, b)


def _refused(name: str, arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    op = getattr(ops, name)
    with pytest.raises(error, match=re.escape(message)):
        op(*arguments)


@every_loss
def test_wrong_images_are_refused(name: str) -> None:
    target, reconstruction, mask = (image.detach() for image in _images(2, 4, 5))
    prefix = f"focus.ops.{name}: "
    _refused(name, ([[0.0]], reconstruction, mask), TypeError, prefix + "target expected a torch.Tensor, got list")
    _refused(name, (target.int(), reconstruction, mask), TypeError, prefix + "target expected a floating dtype")
    _refused(name, (target[0], reconstruction, mask), ValueError, prefix + "target expected shape [B, C, H, W]")
    _refused(name, (target[:, :0], reconstruction[:, :0], mask), ValueError, prefix + "target expected at least one")
    shape = "reconstruction expected shape [2, 3, 4, 5], got [2, 3, 4, 4]"
    _refused(name, (target, reconstruction[..., :4], mask), ValueError, prefix + shape)
    _refused(name, (target, reconstruction.double(), mask), TypeError, prefix + "reconstruction is torch.float64")
    _refused(name, (target, reconstruction.to("meta"), mask), ValueError, prefix + "reconstruction is on meta")


@every_loss
def test_wrong_masks_are_refused(name: str) -> None:
    target, reconstruction, mask = (image.detach() for image in _images(2, 4, 5))
    prefix = f"focus.ops.{name}: mask "
    expected = prefix + "expected shape [2, 1, 4, 5], got [2, 3, 4, 5]"
    _refused(name, (target, reconstruction, target), ValueError, expected)
    _refused(name, (target, reconstruction, mask[:1]), ValueError, prefix + "expected shape [2, 1, 4, 5]")
    _refused(
        name, (target, reconstruction, mask > 0.5), TypeError, prefix + "expected a floating dtype, got torch.bool"
    )
    _refused(name, (target, reconstruction, mask.to("meta")), ValueError, prefix + "is on meta")
    if not name.startswith("neighbor"):
        _refused(name, (target, reconstruction, None), TypeError, prefix + "expected a torch.Tensor, got NoneType")
