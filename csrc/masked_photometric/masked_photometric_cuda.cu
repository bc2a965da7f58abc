#include "common/launch.h"
#include "common/sum_cuda.h"
#include "masked_photometric/masked_photometric_math.h"

namespace focus {

namespace {

// One block per chunk of pixels.
template <int Channels>
__global__ void masked_photometric_kernel(MaskedPhotometricParameters<float> p, PixelChunks chunks) {
    for (int64_t chunk = blockIdx.x; chunk < chunks.count; chunk += gridDim.x) {
        int64_t const b = quotient(chunk, chunks.per_image), begin = chunks.begin(chunk, b), size = chunks.size(begin);
        ColorPair<float> const pair(p, b);
        float const* const mask = p.mask.data + b * chunks.area;
        float distance_sum = 0.0f, mask_sum = 0.0f;
        for (int64_t i = begin + threadIdx.x; i < begin + size; i += blockDim.x) {
            distance_sum += photometric_distance(mask[i], squared_difference<Channels>(pair, i));
            mask_sum += mask[i];
        }
        distance_sum = block_sum(distance_sum);
        mask_sum = block_sum(mask_sum);
        if (threadIdx.x == 0) {
            p.partial_sums.data[chunk] = distance_sum;
            p.partial_sums.data[chunks.count + chunk] = mask_sum;
        }
    }
}

__global__ void masked_photometric_sum_kernel(MaskedPhotometricParameters<float> p, int64_t count) {
    double const distance_sum = sum_of_chunks(p.partial_sums.data, count);
    float const mask_sum = static_cast<float>(sum_of_chunks(p.partial_sums.data + count, count));
    if (threadIdx.x == 0) {
        p.mask_sum.data[0] = mask_sum;
        p.loss.data[0] = static_cast<float>(distance_sum / photometric_denominator(mask_sum));
    }
}

template <int Channels>
__global__ void masked_photometric_backward_kernel(MaskedPhotometricBackwardParameters<float> p, PixelChunks chunks) {
    PhotometricGradients<float> const grads(p);
    for (int64_t chunk = blockIdx.x; chunk < chunks.count; chunk += gridDim.x) {
        int64_t const b = quotient(chunk, chunks.per_image), begin = chunks.begin(chunk, b), size = chunks.size(begin);
        ColorPair<float> const pair(p, b);
        int64_t const plane = b * chunks.area, image = plane * pair.channels;
        for (int64_t i = begin + threadIdx.x; i < begin + size; i += blockDim.x) {
            float const mask = p.mask.data[plane + i], squared = squared_difference<Channels>(pair, i);
            float const factor = photometric_color_factor(mask, squared, grads.distance);
            store_color_gradients(pair, i, 1, &factor, p.grad_target ? p.grad_target.data + image : nullptr,
                                  p.grad_reconstruction ? p.grad_reconstruction.data + image : nullptr);
            if (p.grad_mask) p.grad_mask.data[plane + i] = photometric_mask_gradient(mask, squared, grads.distance, grads.sum);
        }
    }
}

}  // namespace

void masked_photometric_cuda(MaskedPhotometricParameters<float> const& p, Stream stream) {
    PixelChunks const chunks(p.mask.size[0], p.mask.stride());
    auto const kernel = p.target.size[1] == 3 ? masked_photometric_kernel<3> : masked_photometric_kernel<0>;
    launch("masked_photometric", kernel, grid_size(chunks.count, 1), kBlockSize, stream, p, chunks);
    launch("masked_photometric_sum", masked_photometric_sum_kernel, 1, kSumBlockSize, stream, p, chunks.count);
}

void masked_photometric_backward_cuda(MaskedPhotometricBackwardParameters<float> const& p, Stream stream) {
    PixelChunks const chunks(p.mask.size[0], p.mask.stride());
    auto const kernel = p.target.size[1] == 3 ? masked_photometric_backward_kernel<3> : masked_photometric_backward_kernel<0>;
    launch("masked_photometric_backward", kernel, grid_size(chunks.count, 1), kBlockSize, stream, p, chunks);
}

}  // namespace focus
