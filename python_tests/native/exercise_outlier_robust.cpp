#include "exercise_images.h"
#include "outlier_robust/outlier_robust.h"

namespace focus::exercise {

namespace {

void run_images(int64_t channels) {
    Images images(channels);
    Buffer<float> loss_cpu(1), loss_cuda(1), inlier_cpu(kArea), inlier_cuda(kArea), grad_loss(std::vector<float>{0.7f});
    Buffer<double> partial_sums(kBatch * kChunks);
    OutlierRobustParameters<float> p{};
    images.give_inputs(p);
    p.sigma = 0.3;
    p.cutoff = 2.0;
    p.loss = loss_cpu.view(1);
    p.inlier = inlier_cpu.view(kBatch, 1, kRows, kColumns);
    p.partial_sums = partial_sums.view(kBatch, kChunks);
    outlier_robust_cpu(p, 2);
    p.loss = loss_cuda.view(1);
    p.inlier = inlier_cuda.view(kBatch, 1, kRows, kColumns);
    outlier_robust_cuda(on_card(p), nullptr);
    wait_for_device();
    expect_close(loss_cuda, loss_cpu, "loss", 1e-5);
    expect_same_bits(inlier_cuda, inlier_cpu, "inliers");

    OutlierRobustBackwardParameters<float> q{};
    Gradients cpu(channels), cuda(channels);
    images.give_inputs(q);
    q.sigma = p.sigma;
    q.cutoff = p.cutoff;
    q.grad_loss = grad_loss.input(1);
    cpu.give_outputs(q);
    outlier_robust_backward_cpu(q, 2);
    cuda.give_outputs(q);
    outlier_robust_backward_cuda(on_card(q), nullptr);
    wait_for_device();
    cuda.expect_same(cpu);
}

void run() {
    run_images(3);
    run_images(2);
}

Exercise const exercise("outlier_robust", run);

}  // namespace

}  // namespace focus::exercise
