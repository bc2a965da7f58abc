#include "common/sum_cuda.h"
#include "common/wide_pixels.h"
#include "outlier_robust/outlier_robust_math.h"

namespace focus {

namespace {

// One block per chunk of pixels, kTogether of them at once a thread.
template <int Channels, bool kWide>
__global__ void outlier_robust_kernel(OutlierRobustParameters<float> p, PixelChunks chunks, OutlierModel<float> model) {
    for (int64_t chunk = blockIdx.x; chunk < chunks.count; chunk += gridDim.x) {
        int64_t const b = quotient(chunk, chunks.per_image), begin = chunks.begin(chunk, b);
        ColorPair<float> const pair(p, b);
        float sum = 0.0f;
        for_pixels_of_chunk(begin, chunks.size(begin), [&](int64_t i, int count) {
            int64_t const pixel = b * chunks.area + i;
            Pixels const mask = load_pixels<kWide>(p.mask.data + pixel, count);
            Pixels const squared = ColorPixels<Channels, kWide>(pair, i, count).squared_differences();
            Pixels inlier;
            for (int k = 0; k < kTogether; ++k) {
                inlier[k] = mask[k] * model.selected(squared[k]);
                sum += inlier[k] * model.log_likelihood(squared[k]);
            }
            store_pixels<kWide>(p.inlier.data + pixel, inlier, count);
        });
        sum = block_sum(sum);
        if (threadIdx.x == 0) p.partial_sums.data[chunk] = sum;
    }
}

__global__ void __launch_bounds__(kSumBlockSize) outlier_robust_sum_kernel(OutlierRobustParameters<float> p, int64_t count) {
    double const total = sum_of_chunks(p.partial_sums.data, count);
    if (threadIdx.x == 0) p.loss.data[0] = static_cast<float>(count ? -total / p.mask.count() : 0.0);
}

template <int Channels, bool kWide>
__global__ void outlier_robust_backward_kernel(OutlierRobustBackwardParameters<float> p, PixelChunks chunks, OutlierModel<float> model) {
    float const grad = outlier_term_gradient(p);
    for (int64_t chunk = blockIdx.x; chunk < chunks.count; chunk += gridDim.x) {
        int64_t const b = quotient(chunk, chunks.per_image), begin = chunks.begin(chunk, b);
        ColorPair<float> const pair(p, b);
        int64_t const plane = b * chunks.area, image = plane * pair.channels;
        for_pixels_of_chunk(begin, chunks.size(begin), [&](int64_t i, int count) {
            Pixels const mask = load_pixels<kWide>(p.mask.data + plane + i, count);
            ColorPixels<Channels, kWide> const colors(pair, i, count);
            Pixels const squared = colors.squared_differences();
            Pixels factors, grad_mask;
            for (int k = 0; k < kTogether; ++k) {
                factors[k] = model.color_factor(mask[k], squared[k], grad);
                grad_mask[k] = model.mask_gradient(squared[k], grad);
            }
            colors.store_gradients(factors, p.grad_target ? p.grad_target.data + image : nullptr,
                                   p.grad_reconstruction ? p.grad_reconstruction.data + image : nullptr);
            if (p.grad_mask) store_pixels<kWide>(p.grad_mask.data + plane + i, grad_mask, count);
        });
    }
}

}  // namespace

void outlier_robust_cuda(OutlierRobustParameters<float> const& p, Stream stream) {
    PixelChunks const chunks(p.mask.size[0], p.mask.stride());
    OutlierModel<float> const model(p.sigma, p.cutoff, p.target.size[1]);
    bool const wide = fit_wide_pixels(chunks.area, p.target, p.reconstruction, p.mask, p.inlier);
    with_pixels(p.target.size[1], wide, [&](auto channels, auto is_wide) {
        launch("outlier_robust", outlier_robust_kernel<channels(), is_wide()>, grid_size(chunks.count, 1), kBlockSize, stream, p, chunks,
               model);
    });
    launch("outlier_robust_sum", outlier_robust_sum_kernel, 1, kSumBlockSize, stream, p, chunks.count);
}

void outlier_robust_backward_cuda(OutlierRobustBackwardParameters<float> const& p, Stream stream) {
    PixelChunks const chunks(p.mask.size[0], p.mask.stride());
    OutlierModel<float> const model(p.sigma, p.cutoff, p.target.size[1]);
    bool const wide = fit_wide_pixels(chunks.area, p.target, p.reconstruction, p.mask, p.grad_target, p.grad_reconstruction, p.grad_mask);
    with_pixels(p.target.size[1], wide, [&](auto channels, auto is_wide) {
        launch("outlier_robust_backward", outlier_robust_backward_kernel<channels(), is_wide()>, grid_size(chunks.count, 1), kBlockSize,
               stream, p, chunks, model);
    });
}

}  // namespace focus
