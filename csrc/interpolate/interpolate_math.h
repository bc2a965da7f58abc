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

}  // namespace focus
