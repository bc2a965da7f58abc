"""One iteration: the gradient of a batch, and the step that an optimiser makes of it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from focus import losses
from focus.data.batches import FaceBatch
from focus.errors import FocusError
from focus.phases import phase
from focus.train.capture import Graphs
from focus.train.checkpoint import Networks
from focus.train.config import OptimiserSettings, Settings
from focus.train.distributed import place, shared, uses_bfloat16
from focus.train.objectives import Objectives, Part
from focus.train.schedule import Network, Turn, rate_of


def make_optimiser(
    settings: OptimiserSettings, parameters: Iterable[nn.Parameter], *, fused: bool, captured: bool = False
) -> torch.optim.Optimizer:
    """The optimiser of the settings, with torch's default constants.

    Args:
        settings: which.
        parameters: all on one device, which decides what can be fused.
        fused: a few calls for all parameters, in place of several for each: the same numbers but for rounding.
        captured: its steps are captured in CUDA graphs: learning rate and counts are tensors of the card.
    """
    parameters = list(parameters)
    rate: Any = torch.zeros((), dtype=torch.float32, device=parameters[0].device) if captured else 0.0
    if settings.name == "adam":
        return torch.optim.Adam(parameters, lr=rate, fused=fused, capturable=captured)
    # Weight by weight it would read the learning rate from the card.
    return torch.optim.Adadelta(parameters, lr=rate, foreach=fused or captured, capturable=captured)


class Learner:
    """Changes the networks, one at a time.

    Args:
        settings: of the run.
        networks: on their device.
        objectives: what they minimise.
        device: where all of this is.
    """

    def __init__(
        self,
        settings: Settings,
        networks: Networks,
        objectives: Objectives,
        device: torch.device,
    ) -> None:
        self.settings, self.networks, self.objectives = settings, networks, objectives
        self.optimisers: dict[Network, torch.optim.Optimizer] = {}
        self._device = device
        self._shared: DistributedDataParallel | None = None
        self._done: Any = None
        """On a card, an event after the last iteration."""
        self.whole = True
        """Whether the weights are those of a number of whole iterations; False while an optimiser is at work."""
        self._statistics = _Statistics(())
        measures = settings.measures
        bfloat16 = uses_bfloat16(settings.precision, device)
        for network in (networks.reconstruction, networks.segmentation):
            network.in_bfloat16 = bfloat16
            if not measures.channels_last:
                network.channels_last = False
            if measures.compile:
                network.compile_layers(dynamic=False)
        one = place()[1] == 1 and measures.parts == 1
        self._graphs = Graphs(device) if device.type == "cuda" and measures.graph and one else None
        self._compiled_before = 0
        self._compiled_before = self.compiled_graphs
        size = place()[1]
        if settings.batch_size % (size * measures.parts):
            raise FocusError(
                f"settings: measures.parts: expected a divisor of the {settings.batch_size // size} faces of a batch "
                f"that each process has, got {measures.parts}"
            )

    @property
    def compiled_graphs(self) -> int:
        """How many graphs torch has compiled for the networks, 0 without `MeasureSettings.compile`."""
        if not self.settings.measures.compile:
            return 0
        from torch._dynamo.utils import counters

        return int(counters["stats"]["unique_graphs"]) - self._compiled_before

    def begin_stage(self, names: Iterable[Network]) -> None:
        """Optimisers without a memory for the networks that learn in a stage."""
        settings, captured = self.settings, self._graphs is not None
        self.optimisers = {
            name: make_optimiser(
                settings.optimiser,
                self.networks.of(name).parameters(),
                fused=settings.measures.fused,
                captured=captured,
            )
            for name in names
        }

    def begin(self, learns: Network) -> None:
        """One network learns, the other one is frozen."""
        if self._graphs is not None:
            self._graphs.forget()
        for name, network in self.networks.items():
            network.train(name == learns)
            network.requires_grad_(name == learns)
        self._statistics = _Statistics(self.networks.of(learns).buffers())
        method = "forward" if learns == "reconstruction" else "logits"
        self._shared = shared(self.networks.of(learns), method, self._device)
        self.networks.through = {} if self._shared is None else {learns: self._shared}

    def learn(self, turn: Turn, step: int, batch: FaceBatch) -> dict[str, Tensor]:
        """Iteration `step` of the run.

        Returns:
            The loss and its terms, detached, where they were computed: nothing here waits for the device.
        """
        self._statistics.keep()
        rate = rate_of(self.settings.optimiser, turn).at(turn.iteration(step), turn.total)
        for group in self.optimisers[turn.network].param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

        found = self._run(turn, step, batch)
        if self._device.type == "cuda":
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._done.record()
        return found

    def _run(self, turn: Turn, step: int, batch: FaceBatch) -> dict[str, Tensor]:
        """As it is, or as a graph."""

        def work(batch: FaceBatch) -> dict[str, Tensor]:
            return self._step(turn, step, batch)

        self._seed(step, Part(0, 1))
        constants = self.objectives.constants(turn, step) if self._graphs is not None else None
        if self._graphs is None or constants is None:
            return work(batch)
        key = (turn.stage, turn.network, turn.start, constants)
        # A sigma or a ramp that still changes: no iteration but this one has its value.
        left = turn.end - step if constants == self.objectives.constants(turn, step + 1) else 1
        found = self._graphs.run(key, batch, work, left=left)
        self._statistics.forget()
        return found

    def _step(self, turn: Turn, step: int, batch: FaceBatch) -> dict[str, Tensor]:
        settings, optimiser = self.settings, self.optimisers[turn.network]
        optimiser.zero_grad()
        found = self._gradients(turn, step, batch)
        parameters = optimiser.param_groups[0]["params"]
        with phase("optimizer"):
            limit = settings.optimiser.gradient_clip
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            found["gradient_norm"] = norm = nn.utils.get_total_norm(gradients)
            if limit is not None:
                nn.utils.clip_grads_with_norm_(parameters, limit, norm)
            self.whole = False
            with warnings.catch_warnings():
                # Of iterations before one is captured.
                warnings.filterwarnings("ignore", message=".*capturable=True, but step")
                optimiser.step()
            self.whole = True
            self._statistics.forget()
        return found

    def _gradients(self, turn: Turn, step: int, batch: FaceBatch) -> dict[str, Tensor]:
        """Adds the gradient of the loss of a batch to that of the parameters, part by part."""
        count = self.settings.measures.parts
        parts = [Part(number, count) for number in range(count)]
        if count == 1:
            return self._gradient(turn, step, batch, parts[0])
        joined = losses.JoinedPixels(count)
        for part in parts:
            with torch.no_grad(), joined.counted():
                self._seed(step, part)
                self.objectives.of_turn(turn, step, batch, part)
            if not joined.sums:
                break  # this loss has no L_pixel
        joined.exchange()
        self.undo()
        terms: dict[str, Tensor] = {}
        for part in parts:
            # The last part's backward pass exchanges the sums of all.
            alone = self._shared is not None and part.index + 1 < count
            with joined.learnt(), self._shared.no_sync() if self._shared and alone else contextlib.nullcontext():
                self._seed(step, part)
                for name, value in self._gradient(turn, step, batch, part).items():
                    terms[name] = terms.get(name, 0) + value / count
        return terms

    def _gradient(self, turn: Turn, step: int, batch: FaceBatch, part: Part) -> dict[str, Tensor]:
        loss, terms = self.objectives.of_turn(turn, step, batch, part)
        with phase("losses, backward"):
            torch.autograd.backward(loss / part.parts if part.parts > 1 else loss)
        return {"loss": loss.detach(), **terms}

    def _seed(self, step: int, part: Part) -> None:
        """Random numbers (dropout) follow from the iteration: no state of a generator to keep."""
        process, processes = place()
        number = (step * processes + process) * part.parts + part.index
        torch.manual_seed((self.settings.seed << 32) + number)

    def is_idle(self) -> bool:
        """Whether the device has done all that the iterations before this gave it to do."""
        return self._done is None or bool(self._done.query())

    def undo(self) -> None:
        """Puts the statistics back that an iteration changed which was not finished."""
        self._statistics.put_back()


class _Statistics:
    """Buffers of a network (those of BatchNorm), and their values before the iteration that is under way."""

    def __init__(self, buffers: Iterable[Tensor]) -> None:
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for buffer in buffers:
            kinds.setdefault(buffer.dtype, []).append(buffer)
        self._kinds = [(group, [torch.clone(buffer) for buffer in group]) for group in kinds.values()]
        self._under_way = False

    def keep(self) -> None:
        for buffers, before in self._kinds:
            torch._foreach_copy_(before, buffers)  # one launch for many
        self._under_way = True

    def forget(self) -> None:
        self._under_way = False

    def put_back(self) -> None:
        if self._under_way:
            for buffers, before in self._kinds:
                torch._foreach_copy_(buffers, before)
