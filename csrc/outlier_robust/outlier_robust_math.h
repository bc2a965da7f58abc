// log p = -q / (2 sigma^2) + c with c = -C/2 log(2 pi) - C log(sigma);  inlier = m [q < (cutoff sigma)^2];  L = -mean(inlier log p).
// The selection in brackets is a constant for the gradient.
#pragma once

#include <math.h>

#include "common/color_difference.h"
#include "outlier_robust/outlier_robust.h"

namespace focus {

template <typename T>
struct OutlierModel {
    OutlierModel(double sigma, double cutoff, int64_t channels)
        : threshold(T(cutoff * sigma * cutoff * sigma)),
          precision(T(1 / (sigma * sigma))),
          constant(T(-double(channels) * (0.5 * log(6.283185307179586) + log(sigma)))) {}

    // Products, not branches: q that is not finite makes the loss NaN, even though such a pixel is no inlier.
    FOCUS_HD T selected(T squared) const { return squared < threshold ? T(1) : T(0); }
    FOCUS_HD T log_likelihood(T squared) const { return constant - T(0.5) * precision * squared; }

    // Factor k of color_difference.h, and dL/dm; `grad` is dL / d(inlier log p) of any pixel.
    FOCUS_HD T color_factor(T mask, T squared, T grad) const { return -grad * precision * (mask * selected(squared)); }
    FOCUS_HD T mask_gradient(T squared, T grad) const { return grad * (selected(squared) * log_likelihood(squared)); }

    T threshold;  // of q
    T precision;  // 1 / sigma^2
    T constant;   // c
};

template <typename T>
FOCUS_HD T outlier_term_gradient(OutlierRobustBackwardParameters<T> const& p) {
    return -p.grad_loss.data[0] / T(p.mask.count());
}

}  // namespace focus
