#include "common/color_loss_cpu.h"
#include "common/sum.h"
#include "outlier_robust/outlier_robust_math.h"

namespace focus {

namespace {

template <int Channels, typename T>
FOCUS_HD void terms(ColorPair<T> const& pair, T const* mask, int64_t begin, int64_t count, OutlierModel<T> model, T* __restrict inlier,
                    T* __restrict out) {
    for (int64_t i = 0; i < count; ++i) {
        T const squared = squared_difference<Channels>(pair, begin + i);
        inlier[i] = mask[begin + i] * model.selected(squared);
        out[i] = inlier[i] * model.log_likelihood(squared);
    }
}

}  // namespace

template <typename T>
void outlier_robust_cpu(OutlierRobustParameters<T> const& p, int threads) {
    PixelChunks const chunks(p.mask.size[0], p.mask.stride());
    OutlierModel<T> const model(p.sigma, p.cutoff, p.target.size[1]);
    parallel_for(chunks.count, worthwhile_threads(threads, kNanosecondsForward * p.target.count()), [&](int64_t chunk) {
        int64_t const b = chunk / chunks.per_image, begin = chunks.begin(chunk, b), count = chunks.size(begin), plane = b * chunks.area;
        T values[kPixelChunk];
        vectorized([&]() FOCUS_INLINE {
            ColorPair<T> const pair(p, b);
            with_channels(pair.channels, [&](auto channels) FOCUS_INLINE {
                terms<channels>(pair, p.mask.data + plane, begin, count, model, p.inlier.data + plane + begin, values);
            });
            p.partial_sums.data[chunk] = lane_sum(values, count);
        });
    });
    double const total = ordered_sum(p.partial_sums.data, chunks.count);
    p.loss.data[0] = static_cast<T>(chunks.count ? -total / p.mask.count() : 0.0);
}

template <typename T>
void outlier_robust_backward_cpu(OutlierRobustBackwardParameters<T> const& p, int threads) {
    OutlierModel<T> const model(p.sigma, p.cutoff, p.target.size[1]);
    T const grad = outlier_term_gradient(p);
    color_gradients_cpu<T>(
        p, threads, [&](T mask, T squared) FOCUS_INLINE { return model.color_factor(mask, squared, grad); },
        [&](T, T squared) FOCUS_INLINE { return model.mask_gradient(squared, grad); });
}

template void outlier_robust_cpu(OutlierRobustParameters<float> const&, int);
template void outlier_robust_cpu(OutlierRobustParameters<double> const&, int);
template void outlier_robust_backward_cpu(OutlierRobustBackwardParameters<float> const&, int);
template void outlier_robust_backward_cpu(OutlierRobustBackwardParameters<double> const&, int);

}  // namespace focus
