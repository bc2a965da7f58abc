// L = sum |m (T - R)| / D with D = max(sum m, 1), and |m (T - R)| = |m| sqrt(q). Where m or q is 0, so is the subgradient of the distance.
#pragma once

#include <math.h>

#include "common/color_difference.h"
#include "masked_photometric/masked_photometric.h"

namespace focus {

template <typename T>
FOCUS_HD T photometric_distance(T mask, T squared) {
    return T(fabs(mask)) * T(sqrt(squared));
}

// max(mask_sum, 1); NaN stays.
template <typename T>
FOCUS_HD T photometric_denominator(T mask_sum) {
    return mask_sum < T(1) ? T(1) : mask_sum;
}

// k of color_difference.h; `grad` is dL / d distance.
template <typename T>
FOCUS_HD T photometric_color_factor(T mask, T squared, T grad) {
    return squared == T(0) ? T(0) : grad * T(fabs(mask)) / T(sqrt(squared));
}

// dL/dm: of the distance, and of the denominator, where `grad_sum` = dL / d sum m.
template <typename T>
FOCUS_HD T photometric_mask_gradient(T mask, T squared, T grad, T grad_sum) {
    T const sign = mask == T(0) ? T(0) : mask < T(0) ? T(-1) : T(1);
    return grad * sign * T(sqrt(squared)) + grad_sum;
}

// Of a sum of distances and of the mask.
template <typename T>
FOCUS_HD void store_photometric_loss(MaskedPhotometricParameters<T> const& p, double distance_sum, T mask_sum) {
    T const loss = static_cast<T>(distance_sum / photometric_denominator(mask_sum));
    p.loss.data[0] = p.sums.data[0] = loss;
    p.sums.data[1] = mask_sum;
}

// What all pixels share in the backward pass.
template <typename T>
struct PhotometricGradients {
    FOCUS_HD explicit PhotometricGradients(MaskedPhotometricBackwardParameters<T> const& p) {
        T const loss = p.sums.data[0], mask_sum = p.sums.data[1];
        distance = p.grad_loss.data[0] / photometric_denominator(mask_sum);
        sum = mask_sum < T(1) ? T(0) : -distance * loss;
    }
    T distance;  // dL / d distance of any pixel
    T sum;       // dL / d sum m
};

}  // namespace focus
