#include "exercise_images.h"
#include "masked_photometric/masked_photometric.h"

namespace focus::exercise {

namespace {

void run_images(int64_t channels) {
    Images images(channels);
    Buffer<float> loss_cpu(1), loss_cuda(1), sums_cpu(2), sums_cuda(2), grad_loss(std::vector<float>{0.7f});
    Buffer<double> partial_sums(2 * kBatch * kChunks);
    MaskedPhotometricParameters<float> p{};
    images.give_inputs(p);
    p.loss = loss_cpu.view(1);
    p.sums = sums_cpu.view(2);
    p.partial_sums = partial_sums.view(2, kBatch, kChunks);
    masked_photometric_cpu(p, 2);
    p.loss = loss_cuda.view(1);
    p.sums = sums_cuda.view(2);
    masked_photometric_cuda(on_card(p), nullptr);
    wait_for_device();
    expect_close(loss_cuda, loss_cpu, "loss", 1e-6);
    expect_close(sums_cuda, sums_cpu, "loss and sum of the mask", 1e-6);

    MaskedPhotometricBackwardParameters<float> q{};
    Gradients cpu(channels), cuda(channels);
    images.give_inputs(q);
    q.sums = sums_cpu.input(2);
    q.grad_loss = grad_loss.input(1);
    cpu.give_outputs(q);
    masked_photometric_backward_cpu(q, 2);
    cuda.give_outputs(q);
    masked_photometric_backward_cuda(on_card(q), nullptr);
    wait_for_device();
    cuda.expect_same(cpu);
}

void run() {
    run_images(3);
    run_images(2);
}

Exercise const exercise("masked_photometric", run);

}  // namespace

}  // namespace focus::exercise
