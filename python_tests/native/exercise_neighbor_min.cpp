#include "exercise.h"
#include "neighbor_min/neighbor_min.h"

namespace focus::exercise {

namespace {

// Backwards on the CPU and on CUDA. `argmin` may hold what no forward pass writes: then the results need not be the same.
void run_backward(NeighborMinBackwardParameters<float> q, Buffer<uint8_t>& argmin, bool same) {
    int64_t const channels = q.target.size[1], values = channels * kPixels;
    Buffer<float> target_cpu(values), reconstruction_cpu(values), mask_cpu(kPixels);
    Buffer<float> target_cuda(values), reconstruction_cuda(values), mask_cuda(kPixels);
    q.argmin = argmin.input(kBatch, kHeight, kWidth);
    q.grad_target = target_cpu.view(kBatch, channels, kHeight, kWidth);
    q.grad_reconstruction = reconstruction_cpu.view(kBatch, channels, kHeight, kWidth);
    q.grad_mask = mask_cpu.view(kBatch, 1, kHeight, kWidth);
    neighbor_min_backward_cpu(q, 2);
    q.grad_target = target_cuda.view(kBatch, channels, kHeight, kWidth);
    q.grad_reconstruction = reconstruction_cuda.view(kBatch, channels, kHeight, kWidth);
    q.grad_mask = mask_cuda.view(kBatch, 1, kHeight, kWidth);
    neighbor_min_backward_cuda(on_card(q), nullptr);
    wait_for_device();
    if (!same) return;
    expect_same_bits(target_cuda, target_cpu, "gradient of the target");
    expect_same_bits(reconstruction_cuda, reconstruction_cpu, "gradient of the reconstruction");
    expect_same_bits(mask_cuda, mask_cpu, "gradient of the mask");
}

void run_images(int64_t channels, int window, bool masked) {
    int64_t const tile_rows = (kHeight + kNeighborTileHeight - 1) / kNeighborTileHeight,
                  tile_columns = (kWidth + kNeighborTileWidth - 1) / kNeighborTileWidth;
    Buffer<float> target(random_floats(channels * kPixels, 0.0f, 1.0f, 1));
    Buffer<float> reconstruction(random_floats(channels * kPixels, 0.0f, 1.0f, 2));
    Buffer<float> mask(random_floats(kPixels, 0.0f, 1.0f, 3)), grad_distance(random_floats(kPixels, -1.0f, 1.0f, 4));
    Buffer<float> distance_cpu(kPixels), distance_cuda(kPixels), loss_cpu(1), loss_cuda(1);
    Buffer<uint8_t> argmin_cpu(kPixels), argmin_cuda(kPixels), argmin_never_written(kPixels);
    Buffer<double> partial_sums(kBatch * tile_rows * tile_columns);

    NeighborMinParameters<float> p{};
    p.target = target.input(kBatch, channels, kHeight, kWidth);
    p.reconstruction = reconstruction.input(kBatch, channels, kHeight, kWidth);
    if (masked) p.mask = mask.input(kBatch, 1, kHeight, kWidth);
    p.window = window;
    p.power = 1;
    p.mean = true;
    p.partial_sums = partial_sums.view(kBatch, tile_rows, tile_columns);
    p.argmin = argmin_cpu.view(kBatch, kHeight, kWidth);
    p.distance = distance_cpu.view(kBatch, kHeight, kWidth);
    p.loss = loss_cpu.view(1);
    neighbor_min_cpu(p, 2);
    p.argmin = argmin_cuda.view(kBatch, kHeight, kWidth);
    p.distance = distance_cuda.view(kBatch, kHeight, kWidth);
    p.loss = loss_cuda.view(1);
    neighbor_min_cuda(on_card(p), nullptr);
    wait_for_device();
    expect_same_bits(argmin_cuda, argmin_cpu, "argmin");
    expect_same_bits(distance_cuda, distance_cpu, "distances");
    expect_close(loss_cuda, loss_cpu, "loss", 1e-6);

    Buffer<float> grad_loss(std::vector<float>{0.7f});
    NeighborMinBackwardParameters<float> q{};
    q.target = p.target;
    q.reconstruction = p.reconstruction;
    q.mask = p.mask;
    q.window = window;
    q.power = 1;
    q.grad_distance = grad_distance.input(kBatch, kHeight, kWidth);
    run_backward(q, argmin_cpu, true);
    q.grad_distance = {};
    q.grad_loss = grad_loss.input(1);
    q.power = 2;
    q.mean = true;
    run_backward(q, argmin_cpu, true);
    run_backward(q, argmin_never_written, false);
}

void run() {
    run_images(3, 3, true);
    run_images(3, 5, true);
    run_images(3, 7, false);
    run_images(2, 3, true);
}

Exercise const exercise("neighbor_min", run);

}  // namespace

}  // namespace focus::exercise
