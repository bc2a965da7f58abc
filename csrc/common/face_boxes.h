// The box of the pixels that show each face, found on the card from the face index alone: what the gathering gradients visit. Integer
// minima and maxima, so the order of the threads does not matter.
#pragma once

#include "common/pixel_boxes.h"

namespace focus {

static __global__ void reset_face_boxes_kernel(FaceScratch scratch, PieceList list) {
    FOCUS_GRID_STRIDE_LOOP(face, scratch.boxes.size[0] * scratch.boxes.size[1]) {
        int32_t* const box = scratch.boxes.data + 4 * face;
        box[0] = box[1] = INT32_MAX;
        box[2] = box[3] = -1;
        if (face == 0) list.clear();
    }
}

// Only the pixels at the rim of an index's pixels can move a box; the others issue no atomic.
static __global__ void mark_face_boxes_kernel(FaceScratch scratch, TensorView<int32_t const, 3> face_index, int per_face) {
    int64_t const height = face_index.size[1], width = face_index.size[2], faces = scratch.boxes.size[1];
    FOCUS_GRID_STRIDE_LOOP(pixel, face_index.count()) {
        int32_t const index = face_index.data[pixel], face = index / per_face;
        if (index < 0 || face >= faces) continue;
        int64_t const row = quotient(pixel, width), b = quotient(row, height);
        int const x = static_cast<int>(pixel - row * width), y = static_cast<int>(row - b * height);
        int32_t* const box = scratch.boxes.data + 4 * (b * faces + face);
        if (x == 0 || face_index.data[pixel - 1] != index) atomicMin(box + 0, x);
        if (y == 0 || face_index.data[pixel - width] != index) atomicMin(box + 1, y);
        if (x == width - 1 || face_index.data[pixel + 1] != index) atomicMax(box + 2, x);
        if (y == height - 1 || face_index.data[pixel + width] != index) atomicMax(box + 3, y);
    }
}

// Returns the list of pieces to visit the boxes with. The index may be one of corners, with 3 `per_face`.
inline PieceList find_face_boxes(FaceScratch const& scratch, TensorView<int32_t const, 3> const& face_index, Stream stream,
                                 int per_face = 1) {
    PieceList const list(scratch.pieces, scratch.piece_sums, face_index.stride());
    launch("reset_face_boxes", reset_face_boxes_kernel, grid_size(scratch.boxes.size[0] * scratch.boxes.size[1]), kBlockSize, stream,
           scratch, list);
    launch("mark_face_boxes", mark_face_boxes_kernel, grid_size(face_index.count()), kBlockSize, stream, scratch, face_index, per_face);
    return list;
}

}  // namespace focus
