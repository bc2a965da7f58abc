#include "common/sum_cuda.h"
#include "common/wide_pixels.h"
#include "masked_photometric/masked_photometric_math.h"

namespace focus {

namespace {

// One block per chunk of pixels, kTogether of them at once a thread.
template <int Channels, bool kWide>
__global__ void masked_photometric_kernel(MaskedPhotometricParameters<float> p, PixelChunks chunks) {
    for (int64_t chunk = blockIdx.x; chunk < chunks.count; chunk += gridDim.x) {
        int64_t const b = quotient(chunk, chunks.per_image), begin = chunks.begin(chunk, b);
        ColorPair<float> const pair(p, b);
        float const* const mask = p.mask.data + b * chunks.area;
        float distance_sum = 0.0f, mask_sum = 0.0f;
        for_pixels_of_chunk(begin, chunks.size(begin), [&](int64_t i, int count) {
            Pixels const weight = load_pixels<kWide>(mask + i, count);
            Pixels const squared = ColorPixels<Channels, kWide>(pair, i, count).squared_differences();
            for (int k = 0; k < kTogether; ++k) {
                distance_sum += photometric_distance(weight[k], squared[k]);
                mask_sum += weight[k];
            }
        });
        distance_sum = block_sum(distance_sum);
        mask_sum = block_sum(mask_sum);
        if (threadIdx.x == 0) {
            p.partial_sums.data[chunk] = distance_sum;
            p.partial_sums.data[chunks.count + chunk] = mask_sum;
        }
    }
}

__global__ void __launch_bounds__(kSumBlockSize) masked_photometric_sum_kernel(MaskedPhotometricParameters<float> p, int64_t count) {
    double const distance_sum = sum_of_chunks(p.partial_sums.data, count);
    float const mask_sum = static_cast<float>(sum_of_chunks(p.partial_sums.data + count, count));
    if (threadIdx.x == 0) store_photometric_loss(p, distance_sum, mask_sum);
}

template <int Channels, bool kWide>
__global__ void masked_photometric_backward_kernel(MaskedPhotometricBackwardParameters<float> p, PixelChunks chunks) {
    PhotometricGradients<float> const grads(p);
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
                factors[k] = photometric_color_factor(mask[k], squared[k], grads.distance);
                grad_mask[k] = photometric_mask_gradient(mask[k], squared[k], grads.distance, grads.sum);
            }
            colors.store_gradients(factors, p.grad_target ? p.grad_target.data + image : nullptr,
                                   p.grad_reconstruction ? p.grad_reconstruction.data + image : nullptr);
            if (p.grad_mask) store_pixels<kWide>(p.grad_mask.data + plane + i, grad_mask, count);
        });
    }
}

}  // namespace

void masked_photometric_cuda(MaskedPhotometricParameters<float> const& p, Stream stream) {
    PixelChunks const chunks(p.mask.size[0], p.mask.stride());
    bool const wide = fit_wide_pixels(chunks.area, p.target, p.reconstruction, p.mask);
    with_pixels(p.target.size[1], wide, [&](auto channels, auto is_wide) {
        launch("masked_photometric", masked_photometric_kernel<channels(), is_wide()>, grid_size(chunks.count, 1), kBlockSize, stream, p,
               chunks);
    });
    launch("masked_photometric_sum", masked_photometric_sum_kernel, 1, kSumBlockSize, stream, p, chunks.count);
}

void masked_photometric_backward_cuda(MaskedPhotometricBackwardParameters<float> const& p, Stream stream) {
    PixelChunks const chunks(p.mask.size[0], p.mask.stride());
    bool const wide = fit_wide_pixels(chunks.area, p.target, p.reconstruction, p.mask, p.grad_target, p.grad_reconstruction, p.grad_mask);
    with_pixels(p.target.size[1], wide, [&](auto channels, auto is_wide) {
        launch("masked_photometric_backward", masked_photometric_backward_kernel<channels(), is_wide()>, grid_size(chunks.count, 1),
               kBlockSize, stream, p, chunks);
    });
}

}  // namespace focus
