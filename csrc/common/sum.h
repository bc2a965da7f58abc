// Sums of losses in two fixed stages: chunks whose limits do not depend on the thread count, then the chunks in order. The bits of a loss
// are the same on every run.
#pragma once

#include <cstdint>

#include "common/macros.h"

namespace focus {

// The values of one chunk, in eight interleaved lanes: fast without licence to reorder, and closer to the exact sum than one accumulator.
template <typename T>
FOCUS_HD double lane_sum(T const* values, int64_t count) {
    constexpr int kLanes = 8;
    double lanes[kLanes] = {};
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += static_cast<double>(values[i + lane]);
    }
    for (int lane = 0; i < count; ++i, ++lane) lanes[lane] += static_cast<double>(values[i]);
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

inline double ordered_sum(double const* partials, int64_t count) {
    double total = 0.0;
    for (int64_t i = 0; i < count; ++i) total += partials[i];
    return total;
}

}  // namespace focus
