#include "common/color_difference.h"
#include "exercise.h"
#include "masked_photometric/masked_photometric.h"
#include "outlier_robust/outlier_robust.h"

namespace focus::exercise {

namespace {

// An image of a whole chunk of pixels and some.
constexpr int64_t kRows = 3, kColumns = kPixelChunk / 2 - 5, kChunks = 2, kArea = kBatch * kRows * kColumns;

struct Images {
    explicit Images(int64_t image_channels)
        : channels(image_channels),
          target(random_floats(channels * kArea, 0.0f, 1.0f, 1)),
          reconstruction(random_floats(channels * kArea, 0.0f, 1.0f, 2)),
          mask(random_floats(kArea, 0.0f, 1.0f, 3)) {}

    template <typename Parameters>
    void give_inputs(Parameters& p) {
        p.target = target.input(kBatch, channels, kRows, kColumns);
        p.reconstruction = reconstruction.input(kBatch, channels, kRows, kColumns);
        p.mask = mask.input(kBatch, 1, kRows, kColumns);
    }

    int64_t channels;
    Buffer<float> target, reconstruction, mask;
};

struct Gradients {
    explicit Gradients(int64_t image_channels)
        : channels(image_channels), target(channels * kArea), reconstruction(channels * kArea), mask(kArea) {}

    template <typename Parameters>
    void give_outputs(Parameters& p) {
        p.grad_target = target.view(kBatch, channels, kRows, kColumns);
        p.grad_reconstruction = reconstruction.view(kBatch, channels, kRows, kColumns);
        p.grad_mask = mask.view(kBatch, 1, kRows, kColumns);
    }

    void expect_same(Gradients& other) {
        expect_same_bits(target, other.target, "gradient of the target");
        expect_same_bits(reconstruction, other.reconstruction, "gradient of the reconstruction");
        expect_same_bits(mask, other.mask, "gradient of the mask");
    }

    int64_t channels;
    Buffer<float> target, reconstruction, mask;
};

void run_masked_photometric(int64_t channels) {
    Images images(channels);
    Buffer<float> loss_cpu(1), loss_cuda(1), mask_sum_cpu(1), mask_sum_cuda(1), grad_loss(std::vector<float>{0.7f});
    Buffer<double> partial_sums(2 * kBatch * kChunks);
    MaskedPhotometricParameters<float> p{};
    images.give_inputs(p);
    p.loss = loss_cpu.view(1);
    p.mask_sum = mask_sum_cpu.view(1);
    p.partial_sums = partial_sums.view(2, kBatch, kChunks);
    masked_photometric_cpu(p, 2);
    p.loss = loss_cuda.view(1);
    p.mask_sum = mask_sum_cuda.view(1);
    masked_photometric_cuda(p, nullptr);
    wait_for_device();
    expect_close(loss_cuda, loss_cpu, "loss", 1e-6);
    expect_close(mask_sum_cuda, mask_sum_cpu, "sum of the mask", 1e-6);

    MaskedPhotometricBackwardParameters<float> q{};
    Gradients cpu(channels), cuda(channels);
    images.give_inputs(q);
    q.loss = loss_cpu.input(1);
    q.mask_sum = mask_sum_cpu.input(1);
    q.grad_loss = grad_loss.input(1);
    cpu.give_outputs(q);
    masked_photometric_backward_cpu(q, 2);
    cuda.give_outputs(q);
    masked_photometric_backward_cuda(q, nullptr);
    wait_for_device();
    cuda.expect_same(cpu);
}

void run_outlier_robust(int64_t channels) {
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
    outlier_robust_cuda(p, nullptr);
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
    outlier_robust_backward_cuda(q, nullptr);
    wait_for_device();
    cuda.expect_same(cpu);
}

Exercise const masked_photometric("masked_photometric", [] {
    run_masked_photometric(3);
    run_masked_photometric(2);
});
Exercise const outlier_robust("outlier_robust", [] {
    run_outlier_robust(3);
    run_outlier_robust(2);
});

}  // namespace

}  // namespace focus::exercise
