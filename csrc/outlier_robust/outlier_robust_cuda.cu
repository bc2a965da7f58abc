#include "common/launch.h"
#include "common/sum_cuda.h"
#include "outlier_robust/outlier_robust_math.h"

namespace focus {

namespace {

// One block per chunk of pixels.
template <int Channels>
__global__ void outlier_robust_kernel(OutlierRobustParameters<float> p, PixelChunks chunks, OutlierModel<float> model) {
    for (int64_t chunk = blockIdx.x; chunk < chunks.count; chunk += gridDim.x) {
        int64_t const b = quotient(chunk, chunks.per_image), begin = chunks.begin(chunk, b), size = chunks.size(begin);
        ColorPair<float> const pair(p, b);
        float sum = 0.0f;
        for (int64_t i = begin + threadIdx.x; i < begin + size; i += blockDim.x) {
            float const squared = squared_difference<Channels>(pair, i);
            float const inlier = p.mask.data[b * chunks.area + i] * model.selected(squared);
            p.inlier.data[b * chunks.area + i] = inlier;
            sum += inlier * model.log_likelihood(squared);
        }
        sum = block_sum(sum);
        if (threadIdx.x == 0) p.partial_sums.data[chunk] = sum;
    }
}

__global__ void outlier_robust_sum_kernel(OutlierRobustParameters<float> p, int64_t count) {
    double const total = sum_of_chunks(p.partial_sums.data, count);
    if (threadIdx.x == 0) p.loss.data[0] = static_cast<float>(count ? -total / p.mask.count() : 0.0);
}

template <int Channels>
__global__ void outlier_robust_backward_kernel(OutlierRobustBackwardParameters<float> p, PixelChunks chunks, OutlierModel<float> model) {
    float const grad = outlier_term_gradient(p);
    for (int64_t chunk = blockIdx.x; chunk < chunks.count; chunk += gridDim.x) {
        int64_t const b = quotient(chunk, chunks.per_image), begin = chunks.begin(chunk, b), size = chunks.size(begin);
        ColorPair<float> const pair(p, b);
        int64_t const plane = b * chunks.area, image = plane * pair.channels;
        for (int64_t i = begin + threadIdx.x; i < begin + size; i += blockDim.x) {
            float const squared = squared_difference<Channels>(pair, i);
            float const factor = model.color_factor(p.mask.data[plane + i], squared, grad);
            store_color_gradients(pair, i, 1, &factor, p.grad_target ? p.grad_target.data + image : nullptr,
                                  p.grad_reconstruction ? p.grad_reconstruction.data + image : nullptr);
            if (p.grad_mask) p.grad_mask.data[plane + i] = model.mask_gradient(squared, grad);
        }
    }
}

}  // namespace

void outlier_robust_cuda(OutlierRobustParameters<float> const& p, Stream stream) {
    PixelChunks const chunks(p.mask.size[0], p.mask.stride());
    OutlierModel<float> const model(p.sigma, p.cutoff, p.target.size[1]);
    auto const kernel = p.target.size[1] == 3 ? outlier_robust_kernel<3> : outlier_robust_kernel<0>;
    launch("outlier_robust", kernel, grid_size(chunks.count, 1), kBlockSize, stream, p, chunks, model);
    launch("outlier_robust_sum", outlier_robust_sum_kernel, 1, kSumBlockSize, stream, p, chunks.count);
}

void outlier_robust_backward_cuda(OutlierRobustBackwardParameters<float> const& p, Stream stream) {
    PixelChunks const chunks(p.mask.size[0], p.mask.stride());
    OutlierModel<float> const model(p.sigma, p.cutoff, p.target.size[1]);
    auto const kernel = p.target.size[1] == 3 ? outlier_robust_backward_kernel<3> : outlier_robust_backward_kernel<0>;
    launch("outlier_robust_backward", kernel, grid_size(chunks.count, 1), kBlockSize, stream, p, chunks, model);
}

}  // namespace focus
