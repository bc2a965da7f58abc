// Working memory of the CUDA kernels that add up over the pixels of each face; allocated by torch, laid out here.
#pragma once

#include "common/tensor_view.h"

namespace focus {

#if defined(FOCUS_EMULATE_CUDA)  // small, so that the tiny pictures of the tests take every path
constexpr int64_t kThreadPixels = 4, kPiecePixels = 64;
constexpr int kMostPieces = 8, kPieceCapacity = 12;
#else
constexpr int64_t kThreadPixels = 32;  // largest box that one thread visits alone
constexpr int64_t kPiecePixels = 512;  // smallest piece of a box
constexpr int kMostPieces = 1024;      // of one box
constexpr int kPieceCapacity = 16384;  // pieces in the list
#endif

constexpr int64_t kPieceListSize = 1 + 2 * kPieceCapacity;  // in int64

struct PixelBox {
    int x_min, y_min, x_max, y_max;  // both ends included

    FOCUS_HD int64_t count() const { return x_min > x_max ? 0 : int64_t(x_max - x_min + 1) * (y_max - y_min + 1); }
};

// Of a gradient that is summed over the pixels of each face.
struct FaceScratch {
    TensorView<int32_t, 3> boxes;      // [B, F, 4] x_min, y_min, x_max, y_max; x_min > x_max where no pixel shows the face
    TensorView<int64_t, 1> pieces;     // [kPieceListSize] see pixel_boxes.h
    TensorView<double, 2> piece_sums;  // [kPieceCapacity, sums per item]
    TensorView<int32_t, 1> shown;      // [1 + B F] how many faces some pixel shows, and their numbers through the batch, in any order

    FOCUS_HD bool is_shown(int64_t face) const { return boxes.data[4 * face + 2] >= 0; }  // by some pixel: its x_max
    FOCUS_HD PixelBox box(int64_t face) const {                                           // face counts through the batch
        int32_t const* const box = boxes.data + 4 * face;
        return {box[0], box[1], box[2], box[3]};
    }
};

}  // namespace focus
