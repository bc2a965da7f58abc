// values[c] = sum_k barycentric[k] * attributes[face[k]][c]
#pragma once

#include "common/macros.h"
#include "interpolate/interpolate.h"

namespace focus {

template <typename T>
FOCUS_HD T interpolate_channel(T const* attributes, int64_t channels, int32_t const* face, T const* barycentric, int64_t channel) {
    return barycentric[0] * attributes[face[0] * channels + channel] + barycentric[1] * attributes[face[1] * channels + channel] +
           barycentric[2] * attributes[face[2] * channels + channel];
}

// d L / d attributes[face[k]][c], the share of one pixel, added to sums[k].
template <typename T, typename B>
FOCUS_HD void add_attribute_gradient(T grad_value, B const* barycentric, double* sums) {
    for (int k = 0; k < 3; ++k) sums[k] += static_cast<double>(grad_value) * barycentric[k];
}

// d L / d barycentric[k] = sum_c grad_values[c] * attributes[face[k]][c]; the channels of a pixel lie `area` apart.
template <typename T>
FOCUS_HD T barycentric_gradient(T const* attributes, int64_t channels, int32_t vertex, T const* grad_values, int64_t area) {
    double sum = 0.0;
    for (int64_t c = 0; c < channels; ++c) sum += static_cast<double>(grad_values[c * area]) * attributes[vertex * channels + c];
    return static_cast<T>(sum);
}

}  // namespace focus
