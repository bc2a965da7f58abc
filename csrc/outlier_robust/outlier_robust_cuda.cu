#include "common/sum_cuda.h"
#include "common/wide_pixels.h"
#include "outlier_robust/outlier_robust_math.h"

namespace focus {

namespace {

// One block per chunk of pixels, kCount of them at once a thread.
template <int Channels, int kCount>
__global__ void outlier_robust_kernel(OutlierRobustParameters<float> p, PixelChunks chunks, OutlierModel<float> model) {
    for (int64_t chunk = blockIdx.x; chunk < chunks.count; chunk += gridDim.x) {
        int64_t const b = quotient(chunk, chunks.per_image), begin = chunks.begin(chunk, b), size = chunks.size(begin);
        ColorPair<float> const pair(p, b);
        float sum = 0.0f;
        for (int64_t i = begin + kCount * threadIdx.x; i < begin + size; i += kCount * blockDim.x) {
            int64_t const pixel = b * chunks.area + i;
            auto const mask = load_pixels<kCount>(p.mask.data + pixel), squared = squared_differences<Channels, kCount>(pair, i);
            Pixels<kCount> inlier;
            for (int k = 0; k < kCount; ++k) {
                inlier[k] = mask[k] * model.selected(squared[k]);
                sum += inlier[k] * model.log_likelihood(squared[k]);
            }
            store_pixels(p.inlier.data + pixel, inlier);
        }
        sum = block_sum(sum);
        if (threadIdx.x == 0) p.partial_sums.data[chunk] = sum;
    }
}

__global__ void outlier_robust_sum_kernel(OutlierRobustParameters<float> p, int64_t count) {
    double const total = sum_of_chunks(p.partial_sums.data, count);
    if (threadIdx.x == 0) p.loss.data[0] = static_cast<float>(count ? -total / p.mask.count() : 0.0);
}

template <int Channels, int kCount>
__global__ void outlier_robust_backward_kernel(OutlierRobustBackwardParameters<float> p, PixelChunks chunks, OutlierModel<float> model) {
    float const grad = outlier_term_gradient(p);
    for (int64_t chunk = blockIdx.x; chunk < chunks.count; chunk += gridDim.x) {
        int64_t const b = quotient(chunk, chunks.per_image), begin = chunks.begin(chunk, b), size = chunks.size(begin);
        ColorPair<float> const pair(p, b);
        int64_t const plane = b * chunks.area, image = plane * pair.channels;
        for (int64_t i = begin + kCount * threadIdx.x; i < begin + size; i += kCount * blockDim.x) {
            auto const mask = load_pixels<kCount>(p.mask.data + plane + i), squared = squared_differences<Channels, kCount>(pair, i);
            Pixels<kCount> factors, grad_mask;
            for (int k = 0; k < kCount; ++k) {
                factors[k] = model.color_factor(mask[k], squared[k], grad);
                grad_mask[k] = model.mask_gradient(squared[k], grad);
            }
            store_wide_color_gradients<Channels>(pair, i, factors, p.grad_target ? p.grad_target.data + image : nullptr,
                                                 p.grad_reconstruction ? p.grad_reconstruction.data + image : nullptr);
            if (p.grad_mask) store_pixels(p.grad_mask.data + plane + i, grad_mask);
        }
    }
}

}  // namespace

void outlier_robust_cuda(OutlierRobustParameters<float> const& p, Stream stream) {
    PixelChunks const chunks(p.mask.size[0], p.mask.stride());
    OutlierModel<float> const model(p.sigma, p.cutoff, p.target.size[1]);
    bool const wide = fit_wide_pixels(chunks.area, p.target, p.reconstruction, p.mask, p.inlier);
    auto const kernel = p.target.size[1] != 3 ? outlier_robust_kernel<0, 1>
                        : wide                ? outlier_robust_kernel<3, 4>
                                              : outlier_robust_kernel<3, 1>;
    launch("outlier_robust", kernel, grid_size(chunks.count, 1), kBlockSize, stream, p, chunks, model);
    launch("outlier_robust_sum", outlier_robust_sum_kernel, 1, kSumBlockSize, stream, p, chunks.count);
}

void outlier_robust_backward_cuda(OutlierRobustBackwardParameters<float> const& p, Stream stream) {
    PixelChunks const chunks(p.mask.size[0], p.mask.stride());
    OutlierModel<float> const model(p.sigma, p.cutoff, p.target.size[1]);
    bool const wide = fit_wide_pixels(chunks.area, p.target, p.reconstruction, p.mask, p.grad_target, p.grad_reconstruction, p.grad_mask);
    auto const kernel = p.target.size[1] != 3 ? outlier_robust_backward_kernel<0, 1>
                        : wide                ? outlier_robust_backward_kernel<3, 4>
                                              : outlier_robust_backward_kernel<3, 1>;
    launch("outlier_robust_backward", kernel, grid_size(chunks.count, 1), kBlockSize, stream, p, chunks, model);
}

}  // namespace focus
