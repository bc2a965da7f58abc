// A typed, contiguous, row-major window on memory that torch owns. Made and checked in csrc/bindings/, assumed valid everywhere else.
#pragma once

#include <cstdint>

#include "common/macros.h"

namespace focus {

template <typename T, int Rank>
struct TensorView {
    T* data = nullptr;  // nullptr stands for an optional tensor that was not given
    int64_t size[Rank] = {};

    FOCUS_HD explicit operator bool() const { return data != nullptr; }

    FOCUS_HD int64_t count() const {
        int64_t product = 1;
        for (int i = 0; i < Rank; ++i) product *= size[i];
        return product;
    }

    // Elements below one index of the first axis: `view.data + b * view.stride()` is item b.
    FOCUS_HD int64_t stride() const {
        int64_t product = 1;
        for (int i = 1; i < Rank; ++i) product *= size[i];
        return product;
    }
};

}  // namespace focus
