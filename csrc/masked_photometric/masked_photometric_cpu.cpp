#include "common/color_loss_cpu.h"
#include "common/sum.h"
#include "masked_photometric/masked_photometric_math.h"

namespace focus {

namespace {

template <int Channels, typename T>
FOCUS_HD void distances(ColorPair<T> const& pair, T const* mask, int64_t begin, int64_t count, T* __restrict out) {
    for (int64_t i = 0; i < count; ++i) out[i] = photometric_distance(mask[begin + i], squared_difference<Channels>(pair, begin + i));
}

}  // namespace

template <typename T>
void masked_photometric_cpu(MaskedPhotometricParameters<T> const& p, int threads) {
    PixelChunks const chunks(p.mask.size[0], p.mask.stride());
    double *const distance_sums = p.partial_sums.data, *const mask_sums = distance_sums + chunks.count;
    parallel_for(chunks.count, worthwhile_threads(threads, kNanosecondsForward * p.target.count()), [&](int64_t chunk) {
        int64_t const b = chunk / chunks.per_image, begin = chunks.begin(chunk, b), count = chunks.size(begin);
        T const* const mask = p.mask.data + b * chunks.area;
        T values[kPixelChunk];
        vectorized([&]() FOCUS_INLINE {
            ColorPair<T> const pair(p, b);
            with_channels(pair.channels, [&](auto channels) FOCUS_INLINE { distances<channels>(pair, mask, begin, count, values); });
            distance_sums[chunk] = lane_sum(values, count);
            mask_sums[chunk] = lane_sum(mask + begin, count);
        });
    });
    store_photometric_loss(p, ordered_sum(distance_sums, chunks.count), static_cast<T>(ordered_sum(mask_sums, chunks.count)));
}

template <typename T>
void masked_photometric_backward_cpu(MaskedPhotometricBackwardParameters<T> const& p, int threads) {
    PhotometricGradients<T> const grads(p);
    color_gradients_cpu<T>(
        p, threads, [&](T mask, T squared) FOCUS_INLINE { return photometric_color_factor(mask, squared, grads.distance); },
        [&](T mask, T squared) FOCUS_INLINE { return photometric_mask_gradient(mask, squared, grads.distance, grads.sum); });
}

template void masked_photometric_cpu(MaskedPhotometricParameters<float> const&, int);
template void masked_photometric_cpu(MaskedPhotometricParameters<double> const&, int);
template void masked_photometric_backward_cpu(MaskedPhotometricBackwardParameters<float> const&, int);
template void masked_photometric_backward_cpu(MaskedPhotometricBackwardParameters<double> const&, int);

}  // namespace focus
